"""The options of diff."""

from dataclasses import dataclass

from batchrec.config.options import check_values, option


@dataclass(frozen=True)
class DiffConfig:
    """Options of `diff`."""

    lists: int = option(10, "Maximum number of lists to show: those that moved most.", minimum=0)
    items: int = option(3, "Maximum number of items to show that came into each of them, and that are gone.", minimum=0)

    def __post_init__(self) -> None:
        check_values(self)
