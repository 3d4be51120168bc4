"""Reports on stdout, as text or as JSON, without secrets."""

import os
import sys
from dataclasses import asdict
from typing import Any

import click

from batchrec.system.json_text import to_json
from batchrec.system.logs import redacted, redacted_values
from batchrec.system.terminal import on_one_line


def echo(text: str) -> None:
    """Print text, its secrets redacted."""
    _print(redacted(text))


def echo_json(value: Any) -> None:
    """Print a value as one line of JSON, its secrets redacted."""
    _print(to_json(redacted_values(value)))


def _print(text: str) -> None:
    try:
        click.echo(text)
    except BrokenPipeError:
        # The job is done, and its reader, such as head, has seen enough. Python would try again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_report(report: Any, as_json: bool) -> None:
    """Print a report: one figure per line, or one line of JSON."""
    if as_json:
        echo_json(asdict(report))
    else:
        print_figures(asdict(report))


def print_figures(values: dict[str, Any]) -> None:
    """Print figures by name, one per line."""
    for name, value in values.items():
        echo(on_one_line(f"{name.replace('_', ' '):30} {_format_value(value)}"))


def _format_value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_format_value(part)}" for name, part in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_format_value, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4f}".rstrip("0").rstrip(".")
    return "none" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
