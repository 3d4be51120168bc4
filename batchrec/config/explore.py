"""The options of explore."""

from dataclasses import dataclass
from datetime import date

from batchrec.config.catalogue import CatalogueConfig
from batchrec.config.options import DATE, check, check_values, option, parse_date, parse_dates


@dataclass(frozen=True)
class ExploreConfig(CatalogueConfig):
    """Options of `explore`."""

    model: tuple[str, ...] = option(
        (),
        "Model directory; repeat it to see two models side by side. Default: model, if no night is published.",
    )
    night: tuple[str, ...] = option(
        (),
        "Run date of a published night; repeat it to see two nights side by side. Default: the newest one, without "
        "--model.",
    )
    sequences: str | None = option(
        None, "Histories of the users. Default: those of the newest night, or sequences.parquet with --model."
    )
    top_k: int = option(10, "Recommendations to show per list.", minimum=1)
    port: int = option(0, "Port of 127.0.0.1 to listen on; 0: any free one.", minimum=0, maximum=65535)

    @property
    def nights(self) -> list[date]:
        """The nights, oldest first."""
        return parse_dates(self.night)

    def __post_init__(self) -> None:
        check_values(self)
        for name in ("model", "night"):
            values = getattr(self, name)
            check(len(values) <= 2, name, ", ".join(values), "at most two")
        for text in self.night:
            check(parse_date(text) is not None, "night", text, DATE)
        check(not (self.model and self.night), "night", ", ".join(self.night), "no --model with it")
