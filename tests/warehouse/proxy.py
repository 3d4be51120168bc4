"""A server that passes requests on to another one, and cuts connections halfway."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from urllib.parse import urlsplit


@contextmanager
def cutting(endpoint: str, n_cut: int, after_bytes: int) -> Iterator[str]:
    """Yield the address of a server in front of `endpoint`.

    Of the connections that send more than after_bytes it cuts the first n_cut there.
    """
    address, numbers, is_over = urlsplit(endpoint), count(), threading.Event()

    def pass_on(source: socket.socket, other: socket.socket, *, is_cut: bool) -> None:
        n_bytes = 0
        with suppress(OSError):
            while part := source.recv(1 << 14):
                n_bytes += len(part)
                if is_cut and n_bytes > after_bytes and next(numbers) < n_cut:
                    break
                other.sendall(part)
        for end in (source, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection((str(address.hostname), int(address.port or 80))) as server:
            answers = threading.Thread(target=pass_on, args=(server, client), kwargs={"is_cut": False})
            answers.start()
            pass_on(client, server, is_cut=True)
            answers.join()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threads: list[threading.Thread] = []

        def accept() -> None:
            while True:
                client, _ = listening.accept()
                if is_over.is_set():
                    client.close()
                    return
                threads.append(threading.Thread(target=serve, args=(client,), daemon=True))
                threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            is_over.set()
            socket.create_connection(listening.getsockname()).close()
            accepting.join()
