"""The options of similar."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from batchrec.config.catalogue import CatalogueConfig
from batchrec.config.options import check_values, option
from batchrec.config.rules import RulesConfig
from batchrec.config.run_date import RunDate

SimilarMethod = Literal["auto", "blended", "co-occurrence", "vectors"]


@dataclass(frozen=True)
class SimilarConfig(RunDate, CatalogueConfig):
    """Options of `similar`."""

    top_k: int = option(10, "Similar items per item.", minimum=1)
    method: SimilarMethod = option(
        "auto",
        "Measure of similarity. co-occurrence: the users that two items share. vectors: the angle between the model's "
        "vectors of the items. blended: both. auto: blended up to 150,000 items, co-occurrence above.",
    )
    allow: str | None = option(
        None,
        "List only these items as similar ones: a table of item_id and optionally valid_from and valid_to.",
    )
    block: str | None = option(None, "List none of these items as similar ones: a table like that of --allow.")
    allow_empty_rules: bool = option(
        False, "Accept a rule table that has no rows, or none with a known id. Without this it is an error."
    )
    run_date: str | None = option(
        None,
        "Date of the table, for valid_from, valid_to, getvariable('run_date') in a .sql table, and targets with a run "
        "date. Default: today (UTC).",
    )

    @cached_property
    def rules(self) -> RulesConfig:
        """The rules as the readers of rule tables take them."""
        return RulesConfig(
            allow=self.allow, block=self.block, allow_empty_rules=self.allow_empty_rules, run_date=str(self.night)
        )

    @property
    def files(self) -> dict[str, str]:
        """The files to read besides the model: option -> path."""
        named = {"--items": self.items, "--allow": self.allow, "--block": self.block}
        return {option: file for option, file in named.items() if file is not None}

    def __post_init__(self) -> None:
        check_values(self)
        self.check_run_date()
