"""The application: read-only pages for a browser on this machine."""

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from batchrec.errors import BatchrecError, ConfigError
from batchrec.explorer.content import Explorer, Page
from batchrec.report_page.templating import template_environment
from batchrec.system.stores import needs_extra

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

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
# Seconds that requests have to end after a signal.
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

    # Neither its own lines on stderr, nor one per request: what is left are bugs, with their traceback.
    options: dict[str, Any] = {"log_config": None, "log_level": "warning", "access_log": False}
    config = uvicorn.Config(
        make_app(explorer), timeout_graceful_shutdown=_GRACE_S, server_header=False, lifespan="off", **options
    )
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((_HOST, port))
            listening.listen()
        except OSError as error:
            raise ConfigError(f"--port {port}: {error.strerror or error}. Pass another one, or 0") from error
        tell(f"http://{_HOST}:{listening.getsockname()[1]}/")
        uvicorn.Server(config).run(sockets=[listening])


def make_app(explorer: Explorer) -> "Starlette":
    """Return the application. It answers GET and HEAD only, opens no path of a request, and writes nothing."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import Response
    from starlette.routing import Route

    environment = template_environment("batchrec.explorer")
    known = {
        "labels": [view.files.label for view in explorer.views],
        "has_titles": explorer.views[0].recommender.catalogue is not None,
    }

    def respond(text: str, kind: str = "text/html", code: int = 200) -> Response:
        # An id or the name of a file may hold bytes that are not UTF-8.
        content = text.encode("utf-8", "backslashreplace")
        return Response(content, code, _HEADERS, f"{kind}; charset=utf-8")

    def html(page: Page, code: int = 200) -> Response:
        return respond(environment.get_template("explore.html").render(page=page, **known), code=code)

    def show(request: "Request") -> Response:
        return html(explorer.page(request.url.query))

    def style(_: "Request") -> Response:
        return respond(environment.get_template("explore.css").render(), "text/css")

    def script(_: "Request") -> Response:
        return respond(environment.get_template("explore.js").render(), "text/javascript")

    def unreadable(_: "Request", error: Exception) -> Response:
        return html(Page(error=str(error)), 500)

    def refused(_: "Request", error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - it is the handler of these
        return html(Page(error=error.detail), error.status_code)

    def bug(_: "Request", __: Exception) -> Response:
        return html(Page(error="This is a bug in batchrec. The terminal shows where."), 500)

    return Starlette(
        routes=[Route("/", show), Route("/explore.css", style), Route("/explore.js", script)],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS, www_redirect=False)],
        exception_handlers={BatchrecError: unreadable, HTTPException: refused, Exception: bug},
    )
