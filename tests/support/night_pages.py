"""Two nights to make pages of, made once per test run, and a reader of pages."""

import json
from collections import defaultdict
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

from batchrec.config import CatalogueConfig, ScoringConfig
from batchrec.nightly.page import NightPages
from batchrec.report_page.night_files import NightFiles
from tests.support.models import training_histories
from tests.support.nights import LENIENT, Company, company, later, night
from tests.support.shared import made_once

# A user with items that the model does not know.
COLD = 900
# The histories of the last night: a third of the users have taken another item.
HISTORIES = {
    user: list(dict.fromkeys(later(user)[user] if user % 3 == 0 else items))
    for user, items in training_histories().items()
} | {COLD: [5]}
BAD_TITLE = '<script>alert(1)</script> & "more"'


@cache
def two_nights() -> Path:
    """Return the folder of a company with two published nights; on the second, some users have a new item."""

    def make(folder: Path) -> None:
        folder.mkdir()
        scoring = ScoringConfig(top_k=5, device="cpu", explain=True)
        with pytest.MonkeyPatch.context() as patch, company(folder, patch) as made:
            patch.setattr(NightPages, "write_next_to_report", lambda *_: None)
            made.scoring, made.config = scoring, replace(LENIENT, report=True)
            for number in range(2):
                made.write_log(HISTORIES if number == 1 else {**training_histories(), COLD: [5]})
                made.run(number)
        rows = [f'{item},"{BAD_TITLE.replace(chr(34), 2 * chr(34))} {item}"' for item in range(1000, 1040)]
        (folder / "items.csv").write_text("\n".join(["movieId,title", *rows]), encoding="utf-8")

    return made_once("two-nights", make)


def pages_of(shop: Company) -> NightPages:
    items = shop.folder / "items.csv"
    catalogue = CatalogueConfig(items=str(items) if items.exists() else None)
    return NightPages(shop.archive, shop.registry, catalogue)


def last_night(evaluation: Path | None = None) -> NightFiles:
    """Return the files of the last of the two nights."""
    return pages_of(Company(two_nights())).files(night(1), evaluation)


class Page(HTMLParser):
    """A page as a reader sees it: of each section, by its id, the text, the figures, the tables by caption."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.texts: dict[str, str] = defaultdict(str)
        self.figures: dict[str, dict[str, str]] = defaultdict(dict)
        self.tables: dict[str, list[list[str]]] = {}
        self._section = self._text = self._name = self._caption = ""
        self.html = file.read_text(encoding="utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "section":
            self._section = dict(attrs)["id"] or ""
        if tag == "tr":
            self.tables[self._caption].append([])
        if tag in {"dt", "dd", "th", "td", "caption"}:
            self._text = ""

    def handle_data(self, data: str) -> None:
        self._text += data
        self.texts[self._section] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "caption":
            self._caption = self._text
            self.tables[self._caption] = []
        elif tag in {"th", "td"}:
            self.tables[self._caption][-1].append(self._text)
        elif tag == "dt":
            self._name = self._text
        elif tag == "dd":
            self.figures[self._section][self._name] = self._text


def write_evaluation(folder: Path) -> Path:
    """Write a small report as evaluate does; a method's name is a piece of HTML."""
    names = ("ndcg", "hit_rate", "recall", "mrr")
    bounds = {
        f"{name}{bound}": value for name in names for bound, value in (("", 0.25), ("_low", 0.125), ("_high", 0.5))
    }
    methods = [
        {"method": name, **bounds, "coverage": 0.75, "mean_popularity_rank": 3.5} for name in ("model", "<b>table</b>")
    ]
    report = {
        "question": "Does a list hold the next item?",
        "users_tested": 1234,
        "test_items": 2345,
        "k": 10,
        "best_baseline": "popular",
        "methods": methods,
        "model": {"model_id": "0123456789ab"},
        "verdicts": ["model against popular: NDCG@10 +.1000 [+.0500, +.1500]: better"],
    }
    file = folder / "evaluation.json"
    file.write_text(json.dumps(report), encoding="utf-8")
    return file
