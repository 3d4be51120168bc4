"""URLs of tables outside this machine's files, such as s3://bucket/folder/ or postgresql://host/db?table=schema.name.

Secrets never come in a URL: every store finds its own credentials, such as the environment, a profile or .pgpass.
"""

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from batchrec.errors import ConfigError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
# Scheme of an object store -> the extra that installs its file system.
OBJECT_STORES = {"s3": "s3", "gs": "gcs", "az": "azure", "https": "https", "memory": ""}

# Time for a server to connect, and for a web server between two blocks.
_PATIENCE_S = 60


def is_url(text: str) -> bool:
    """Return whether a text begins with a scheme like s3://."""
    return _SCHEME.match(text) is not None


@dataclass(frozen=True)
class Url:
    """A URL, parsed. address: the text without parameters. parameters: those after the question mark, by name."""

    text: str
    scheme: str
    address: str
    parameters: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Url":
        """Parse a URL. Raises ConfigError if it holds a password, or a parameter twice."""
        match = _SCHEME.match(text)
        if match is None:
            raise ConfigError(f"{text}: is not a URL; expected one like s3://bucket/folder/")
        address, _, query = text.partition("?")
        pairs = parse_qsl(query, keep_blank_values=True)
        scheme = match[1].lower()
        url = cls(text, scheme, scheme + address[len(scheme) :], dict(pairs))
        try:
            has_password = urlsplit(address).password is not None
        except ValueError as error:
            raise ConfigError(f"{url.place}: is not a URL: {error}") from error
        if has_password or "password" in url.parameters:
            raise ConfigError(
                f"{url.place}: holds a password. Leave it out: it is read from the usual places, such as the "
                "environment, a profile of the store, or .pgpass"
            )
        if len(pairs) != len(url.parameters):
            raise ConfigError(f"{url.place}: has a parameter twice")
        return url

    def __str__(self) -> str:
        """Return the URL without what could be a password."""
        return self.place + self.text[len(self.address) :]

    @property
    def place(self) -> str:
        """The URL without parameters, which may be secrets, and without what could be a password: a text."""
        # A password may have a slash or an @ in it. Digits before a slash are a port.
        return re.sub(r"(://[^/@:]*:)(?!\d*(/|$)).*@", r"\1***@", self.address)

    @property
    def key(self) -> str:
        """The part after the scheme: bucket and key, as a store spells them."""
        return self.address.split("://", 1)[1]

    @property
    def path(self) -> str:
        """The part after the scheme, unquoted: a path in this machine's files for delta:// and duckdb://."""
        return unquote(self.key)

    def parameter(self, name: str, example: str) -> str:
        """Return a parameter. Raises ConfigError if it is missing; example: the parameter as a user would write it."""
        value = self.parameters.get(name)
        if not value:
            raise ConfigError(f"{self}: has no {name}; expected one like ?{name}={example}")
        return value

    def check_parameters(self, known: set[str]) -> None:
        """Raise ConfigError for a parameter that is not known."""
        unknown = sorted(set(self.parameters) - known)
        if unknown:
            raise ConfigError(
                f"{self.place}: unknown parameter {unknown[0]}; expected {', '.join(sorted(known)) or 'none'}"
            )


def connection_uri(url: Url) -> str:
    """Return the URI by which libpq connects: its texts are UTF-8, as ADBC takes and returns them.

    By itself libpq leaves them in the encoding of the database, or of PGCLIENTENCODING, and waits for a server that
    accepts a connection and does not answer.
    """
    patience = "" if "PGCONNECT_TIMEOUT" in os.environ else f"&connect_timeout={_PATIENCE_S}"
    return f"{url.address}?client_encoding=UTF8{patience}"


def file_system(url: Url) -> "AbstractFileSystem":
    """Return the fsspec file system of an object store, without a cache of its listings.

    Raises ConfigError if the package of the store is not installed.
    """
    import fsspec

    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    try:
        if url.scheme == "https":
            from aiohttp import ClientTimeout

            # By itself aiohttp ends each download after five minutes.
            options["client_kwargs"] = {"timeout": ClientTimeout(sock_connect=_PATIENCE_S, sock_read=_PATIENCE_S)}
        return fsspec.filesystem(url.scheme, **options)
    except (ImportError, ValueError) as error:
        extra = OBJECT_STORES.get(url.scheme, "")
        hint = f"Install it with pip install 'batchrec[{extra}]'" if extra else f"Known are {', '.join(OBJECT_STORES)}"
        raise ConfigError(f"{url}: no file system for {url.scheme}:// is installed. {hint}") from error
