"""The application: read-only pages for a browser on this machine."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from batchrec.errors import BatchrecError, ConfigError
from batchrec.explorer.content import Explorer, Page
from batchrec.report_page.templating import template_environment
from batchrec.system.signals import Terminated, interrupted_by_signals, signals_waiting
from batchrec.system.stores import needs_extra

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_HOST = "127.0.0.1"
# Other names that lead here come from a page elsewhere that wants to read this one (DNS rebinding).
_HOSTS = [_HOST, "localhost"]
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
# Seconds that answers have to be sent after a signal.
_GRACE_S = 1


def check_installed() -> None:
    """Raise ConfigError if the packages of the extra explore are missing."""
    with needs_extra("explore", "explore"):
        import jinja2  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401


def serve(explorer: Explorer, port: int, tell: Callable[[str], None]) -> None:
    """Serve the pages on 127.0.0.1 until a signal arrives; tell: is called with the address when it can be opened.

    Raises ConfigError for a port that cannot be used.
    """
    import uvicorn

    class Server(uvicorn.Server):
        """A server that leaves signals to batchrec."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    # Neither its own lines on stderr, nor one per request: only bugs are left, with their traceback.
    quiet: dict[str, Any] = {"log_config": None, "log_level": "warning", "access_log": False, "server_header": False}
    # The parts that are tested, whatever else is installed. Nothing stands between a browser and this server.
    plain: dict[str, Any] = {"http": "h11", "ws": "none", "lifespan": "off", "proxy_headers": False}
    config = uvicorn.Config(make_app(explorer), timeout_graceful_shutdown=_GRACE_S, **quiet, **plain)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((_HOST, port))
            listening.listen()
        except OSError as error:
            raise ConfigError(f"--port {port}: {error.strerror or error}. Pass another one, or 0") from error
        tell(f"http://{_HOST}:{listening.getsockname()[1]}/")
        server = Server(config)
        # The server would catch what a signal raises, and log it as an error of the application.
        with interrupted_by_signals(lambda: setattr(server, "should_exit", True)), signals_waiting(True):
            server.run(sockets=[listening])


def make_app(explorer: Explorer) -> "Starlette":
    """Return the application. It answers GET and HEAD only, opens no path of a request, and writes nothing."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Route

    pages = _Pages(explorer)
    return Starlette(
        routes=[Route("/", pages.show), Route("/explore.css", pages.style), Route("/explore.js", pages.script)],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS, www_redirect=False)],
        exception_handlers={BatchrecError: pages.unreadable, HTTPException: pages.refused, Exception: pages.bug},
    )


class _Pages:
    """The answers. They are coroutines that wait for nothing: others would run in a thread, which no signal reaches."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer
        self._environment = template_environment("batchrec.explorer")
        self._known = {
            "labels": [view.files.label for view in explorer.views],
            "has_titles": explorer.views[0].recommender.catalogue is not None,
        }

    async def show(self, request: "Request") -> "Response":
        try:
            with signals_waiting(False):
                page = self._explorer.page(request.url.query)
            return self._html(page)
        except Terminated as signal:
            return self._html(Page(error=signal.message), 503)

    async def style(self, _: "Request") -> "Response":
        return self._filled("explore.css", "text/css")

    async def script(self, _: "Request") -> "Response":
        return self._filled("explore.js", "text/javascript")

    async def unreadable(self, _: "Request", error: Exception) -> "Response":
        return self._html(Page(error=str(error)), 500)

    async def refused(self, _: "Request", error: Any) -> "Response":
        return self._html(Page(error=error.detail), error.status_code)

    async def bug(self, _: "Request", __: Exception) -> "Response":
        return self._html(Page(error="This is a bug in batchrec. The terminal shows its traceback."), 500)

    def _html(self, page: Page, code: int = 200) -> "Response":
        return self._filled("explore.html", "text/html", code, page=page, **self._known)

    def _filled(self, template: str, kind: str, code: int = 200, **values: Any) -> "Response":
        from starlette.responses import Response

        text = self._environment.get_template(template).render(**values)
        # An id or the name of a file may hold bytes that are not UTF-8.
        return Response(text.encode("utf-8", "backslashreplace"), code, _HEADERS, f"{kind}; charset=utf-8")
