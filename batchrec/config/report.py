"""The options of report."""

from dataclasses import dataclass

from batchrec.config.options import check_values, option


@dataclass(frozen=True)
class ReportConfig:
    """Options of `report`."""

    evaluation: str | None = option(None, "JSON report of batchrec evaluate, whose results are shown too.")

    def __post_init__(self) -> None:
        check_values(self)
