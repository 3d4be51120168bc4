"""Messages between the driver and the workers of an engine, as bytes."""

import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa

from batchrec.errors import BatchrecError, ConfigError


def missing_package(engine: str, package: str, error: ImportError) -> ConfigError:
    """Return the error for an engine whose package cannot be imported."""
    return ConfigError(
        f"--engine {engine}: {package} cannot be imported: {error}. Install it with pip install 'batchrec[{engine}]'"
    )


def to_bytes(batch: pa.RecordBatch) -> bytes:
    """Return a batch as an Arrow stream. A pickled slice would carry the whole batch that it is cut from."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def from_bytes(stream: bytes) -> pa.RecordBatch:
    """Return the batch of `to_bytes`."""
    with pa.ipc.open_stream(stream) as reader:
        return reader.read_next_batch()


def outcome(function: Callable[..., Any], *arguments: Any) -> bytes:
    """Call a function in a worker; return its result as bytes, or an error that is not a bug, for `result_of`."""
    try:
        result = function(*arguments)
    except BatchrecError as error:
        result = error
    return pickle.dumps(result)


def outcomes(results: Iterable[Any]) -> Iterator[bytes]:
    """Yield each result as an outcome; an error that is not a bug is the last one."""
    try:
        yield from map(pickle.dumps, results)
    except BatchrecError as error:
        yield pickle.dumps(error)


def result_of(outcome: bytes) -> Any:
    """Return the result in an outcome. Raises the error that the worker raised."""
    result = pickle.loads(outcome)  # noqa: S301 - written by `outcome` in a worker of this job
    if isinstance(result, BatchrecError):
        raise result
    return result
