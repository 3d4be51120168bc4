"""Changes of batchrec.toml that keep its comments."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchrec.errors import ConfigError
from batchrec.system.atomic import replacing
from batchrec.system.stores import needs_extra


def set_options(file: Path, command: str, values: Mapping[str, Any]) -> None:
    """Set options in the table of a command; None removes one. Comments, order and all else stay as they are.

    A file that does not exist is created. Raises ConfigError if tomlkit is not installed, or the file cannot be written
    or is not TOML.
    """
    with needs_extra(file, "tune"):
        import tomlkit
    try:
        document = tomlkit.parse(file.read_bytes()) if file.exists() else tomlkit.document()
    except tomlkit.exceptions.ParseError as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error
    table = document.setdefault(command, tomlkit.table())
    for name, value in values.items():
        spelling = name.replace("-", "_")
        key = spelling if spelling in table else name
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value
    with replacing(file) as temporary:
        temporary.write_bytes(tomlkit.dumps(document).encode())
