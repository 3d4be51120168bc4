"""inspect: what a file or a folder is, whether it is whole, and what it holds."""

from pathlib import Path

from batchrec.config import SequencesConfig
from batchrec.errors import ConfigError
from batchrec.inspection.folders import folder_inspector
from batchrec.inspection.inspection import Inspection
from batchrec.inspection.logs import inspect_log
from batchrec.inspection.tables import contract_of, inspect_table
from batchrec.sources import is_table_url


def inspect(path: str, config: SequencesConfig = SequencesConfig()) -> Inspection:
    """Inspect a file or folder of batchrec's, or a log; config: how the log is read.

    Raises InputError or ModelError if it is damaged or breaks its contract.
    """
    if is_table_url(path):
        raise ConfigError(f"{path}: is a table of a store; expected a file or a folder. Pass --ratings to read it")
    named = Path(path)
    # An empty path, for example from an unset shell variable, does not mean the current folder.
    inspector = folder_inspector(named) if path != "" and named.is_dir() else None
    if inspector is not None:
        return inspector(named)
    contract = contract_of(named) if named.is_file() else None
    return inspect_log(path, config) if contract is None else inspect_table(named, contract)
