"""Find the item that a person means by a title or an id."""

import difflib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator

import pyarrow.compute as pc

from batchrec.errors import ConfigError
from batchrec.sources.catalogue import Catalogue

_ARTICLES = "the|a|an|le|la|les|il|lo|gli|el|los|las|der|die|das|un|une|ein|eine"


def find_item(wanted: str, catalogue: Catalogue) -> str:
    """Return the id of the item that a title or an id names.

    Titles match without case, year, "a.k.a." part, punctuation and article. If none matches, a title that contains the
    wanted words does.
    Raises ConfigError if nothing matches or several items do; the message lists the nearest titles.
    """
    titles = catalogue.titles.to_pylist()
    query, year = _name(wanted), _year(wanted)
    names = [set(_names(title)) for title in titles]
    same_year = [number for number, title in enumerate(titles) if year in (None, _year(title))]
    matches = [number for number in same_year if query and query in names[number]]
    if not matches:
        known = pc.index(catalogue.item_ids, wanted).as_py()
        if known >= 0:
            return wanted
        matches = [n for n in same_year if query and any(f" {query} " in f" {name} " for name in names[n])]
    if len(matches) == 1:
        return str(catalogue.item_ids[matches[0]].as_py())
    if matches:
        choices = ", ".join(f"{titles[number]!r} (id {catalogue.item_ids[number]})" for number in matches[:10])
        raise ConfigError(f"{wanted!r} is ambiguous: {choices}. Add the year, or pass the item's id")
    owners: defaultdict[str, list[str]] = defaultdict(list)
    for title, all_names in zip(titles, names, strict=True):
        for name in all_names:
            owners[name].append(repr(title))
    close = difflib.get_close_matches(query, owners, n=5, cutoff=0.5)
    # Several items can share a name, and an item can have several names.
    nearest = list(dict.fromkeys(title for name in close for title in owners[name]))[:10]
    raise ConfigError(f"{wanted!r} is not a title or an id of the catalogue; nearest: {', '.join(nearest) or 'none'}")


def _names(title: str) -> Iterator[str]:
    """Yield the names of an item: the text outside parentheses, then each text inside them except the year."""
    yield _name(re.sub(r"\([^()]*\)", " ", title))
    for other in re.findall(r"\(([^()]*)\)", title):
        if not re.fullmatch(r"\s*\d{4}\s*", other):
            yield _name(re.sub(r"^\s*a\.?k\.?a\.?\s", "", other, flags=re.IGNORECASE))


def _name(text: str) -> str:
    """Return a name as lower-case words, without accents, the year, and an article at its start or after a comma."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    plain = re.sub(r"\(\s*\d{4}\s*\)\s*$", "", plain).strip()
    plain = re.sub(rf",\s*({_ARTICLES}|l')$", "", plain)
    words = re.sub(r"[^\w]+", " ", re.sub("['‘’]", "", plain)).strip()
    return re.sub(rf"^({_ARTICLES})\s(?=.)", "", words)


def _year(text: str) -> str | None:
    match = re.search(r"\(\s*(\d{4})\s*\)\s*$", text)
    return match.group(1) if match else None
