"""Log lines on stderr, as text or as JSON with the fields of the run, without secrets."""

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from batchrec.system.json_text import finite

LogFormat = Literal["text", "json"]

_HIDDEN = "***"
# scheme://user:password@, or scheme:/ as a Path spells it: up to the last @ before the path, or up to the next @ if the
# password has a slash. Digits before a slash are a port.
_URL_PASSWORD = re.compile(r"(:/{1,2}[^\s/:@'\"]*:)(?!\d*[/?#])(?:[^\s/?#'\"]*|[^\s'\"]*?)@")
_NAME = r"(?<![\w.-])[\w.-]*(?:password|passwd|passphrase|pwd|secret|token|key|sig|signature|credentials?)"
_SECRET_PAIR = re.compile(
    rf"({_NAME})((?:['\"]\s*:|['\"]?\s*=)\s*)(\"[^\"]*\"|'[^']*'|[^\s&;,'\"()\[\]{{}}#]+)", re.IGNORECASE
)
_SECRET_KEY = re.compile(rf"{_NAME}$", re.IGNORECASE)


@dataclass
class _Lines:
    """The format of log lines, and the fields that all JSON lines have."""

    format: LogFormat = "text"
    fields: dict[str, object] = field(default_factory=dict)


# One for the process: worker threads belong to the same run.
_lines = _Lines()


def redacted(text: str) -> str:
    """Replace what looks like a secret by ***: passwords in URLs, values of names like password, token, key or sig."""
    return _SECRET_PAIR.sub(rf"\1\2{_HIDDEN}", _URL_PASSWORD.sub(rf"\1{_HIDDEN}@", text))


def redacted_values(value: Any) -> Any:
    """Redact every text within dictionaries and lists; texts under names that look secret are replaced as a whole."""
    if isinstance(value, dict):
        return {
            name: _HIDDEN if isinstance(part, str) and _SECRET_KEY.match(str(name)) else redacted_values(part)
            for name, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted_values(part) for part in value]
    return redacted(value) if isinstance(value, str) else value


@contextmanager
def log_fields(**fields: object) -> Iterator[None]:
    """Add fields, such as the stage, to all JSON log lines of the process until the block ends."""
    former = _lines.fields
    # A new dictionary each time: a worker thread may be iterating over the former one.
    _lines.fields = former | fields
    try:
        yield
    finally:
        _lines.fields = former


def add_log_fields(**fields: object) -> None:
    """Add fields to all JSON log lines from now on, including the error that ends the command."""
    _lines.fields = _lines.fields | fields


def log_format() -> LogFormat:
    """Return the current format of log lines."""
    return _lines.format


def is_json() -> bool:
    """Return whether log lines are JSON."""
    return log_format() == "json"


def hides_bars() -> bool | None:
    """Return tqdm's `disable`: None hides bars unless stderr is a terminal, True hides them between JSON lines."""
    if is_json():
        return True
    # A notebook has no terminal, but tqdm.auto draws its own bars there.
    return False if _is_notebook() else None


def _is_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


class _Stderr(logging.StreamHandler[TextIO]):
    """A handler of its own class, to tell it from the handlers of a program that calls batchrec."""


@contextmanager
def logging_to_stderr(level: int) -> Iterator[None]:
    """Write log lines of `level` and above to stderr inside the block, as text unless set_log_format changes it."""
    root, ours = logging.getLogger(), logging.getLogger("batchrec")
    handler, former_level = _Stderr(sys.stderr), ours.level
    root.addHandler(handler)
    ours.setLevel(level)
    set_log_format("text")
    # A night that ran in this process from Python leaves its fields.
    _lines.fields = {}
    try:
        yield
    finally:
        set_log_format("text")
        _lines.fields = {}
        root.removeHandler(handler)
        ours.setLevel(former_level)


def set_log_format(chosen: LogFormat) -> None:
    """Write log lines as text or as JSON objects; with JSON, Python's warnings become log lines too."""
    _lines.format = chosen
    formatter = _json_formatter() if is_json() else _TextFormatter("%(asctime)s %(levelname)s %(message)s")
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Stderr):
            handler.setFormatter(formatter)
    logging.captureWarnings(is_json())


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def _json_formatter() -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter

    class Formatter(JsonFormatter):
        """The fields of the run, then those of the line, with secrets redacted."""

        def process_log_record(self, log_record: dict[str, Any]) -> dict[str, Any]:
            fields: dict[str, Any] = finite(redacted_values(_lines.fields | log_record))
            return fields

        def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's
            return _iso(record.created)

    names = {"asctime": "time", "levelname": "level", "name": "logger"}
    return Formatter("%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields=names)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
