"""The templates of pages: every text is escaped, and its secrets are redacted."""

from importlib.resources import files as package_files
from typing import TYPE_CHECKING

from batchrec.system.logs import redacted

if TYPE_CHECKING:
    from jinja2 import Environment


def template_environment(*packages: str) -> "Environment":
    """Return Jinja's environment for the templates of some packages and of the page of a night, with its colours."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def without_secrets(value: object) -> object:
        # Before a text is escaped, which could hide a secret. Markup is made of such texts.
        return redacted(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    folders = [package_files(package) / "templates" for package in (*packages, "batchrec.report_page")]
    return Environment(
        loader=FileSystemLoader([str(folder) for folder in folders]),
        autoescape=True,
        finalize=without_secrets,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
