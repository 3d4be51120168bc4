"""Texts for people are in plain English: docs, help, messages, docstrings, comments and headers of queries."""

from collections import defaultdict
from pathlib import Path

import pytest

from tests.support.pages import PAGES, ROOT
from tests.support.prose import AVOIDED, hits, texts_of

# They hold the words to avoid.
WORDS = {ROOT / "tests/docs/test_prose.py", ROOT / "tests/support/prose.py"}


def files() -> dict[str, list[Path]]:
    """Return the files with texts for people by folder; pages outside docs/ are a folder by themselves."""
    found: dict[str, list[Path]] = defaultdict(list)
    code = {file for pattern in ("batchrec/**/*.py", "tests/**/*.py", "sql/**/*.sql") for file in ROOT.glob(pattern)}
    for file in sorted({*code, *map(ROOT.joinpath, PAGES)} - WORDS):
        found[str(file.relative_to(ROOT).parent)].append(file)
    found["."].append(ROOT / "CHANGELOG.md")
    return found


@pytest.mark.parametrize("folder", files())
def test_a_folder_is_in_plain_english(folder: str) -> None:
    avoided = [hit for file in files()[folder] for hit in hits(file)]
    assert avoided == []


def test_avoided_words_are_found_and_plain_ones_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.prose.ROOT", tmp_path)
    module = tmp_path / "module.py"
    module.write_text(
        '"""Give the users of whom nothing is known.\n\nRaises InputError where one is no user."""\n'
        "# What was mended is made anew and goes on, for it\n"
        "# is held against a row a user.\n"
        'HELP = "There is no model. What is it? It goes. Return one row per user, for example."\n',
        encoding="utf-8",
    )
    words = [hit.rsplit("(", 1)[1].rstrip(")") for hit in hits(module)]
    assert sorted(words) == sorted(AVOIDED.values())


def test_pages_are_read_without_their_code(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nA `whom` in code.\n\n```text\nwhom\n```\n\n| whom | cell |\n", encoding="utf-8")
    assert sum("whom" in text for text in texts_of(page)) == 1
