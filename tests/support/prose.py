"""The texts that people read, in code and in pages, and the words that they must not use."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests.support.pages import ROOT, prose

# "One row a user", but neither "one of a user" nor "one that a user wrote".
_COUNTED = (
    "batch|chunk|column|command|core|day|epoch|event|file|group|item|job|line|list|method|model|night|relation|row|"
    "rule|second|segment|size|source|table|training|user|week"
)
_BETWEEN = "(?:by|for|from|in|of|that|to|which|with) "

# Each with the word to use instead.
AVOIDED = {
    r"\banew\b": "again, or re-: retrain, recompute",
    r"\bwhom\b|\bof whose\b": "who, whose",
    r"\bmend(?:s|ed)?\b": "fix",
    # "there is no model yet" is plain; "is no number" is not.
    r"(?<!\bthere )(?<!\bThere )\bis no (?!longer|more\b)": "is not a",
    r"\bgo(?:es)? on\b": "resume, continue",
    r"\bh[eo]ld(?:s|ing)?\b[^.;:]{0,60}\bagainst\b": "compare with, check against",
    rf"\b(?:[Aa]|[Oo]ne|1) (?!{_BETWEEN})[\w-]+ an? (?:{_COUNTED})\b": "per",
    r", for (?:it|its|they|their|there|this|that|these|what|only|nothing|nobody|who|whoever|no)\b": "because",
    r"(?:^|(?<=[.!?] ))What (?![^.]*\?)": "name the thing",
    r"(?:^|(?<=[.!?] ))Gives? (?!up\b)": "Return",
    r"\bRaises? [^.]*?\bwhere\b": "if",
}


def hits(file: Path) -> Iterator[str]:
    """Yield each avoided word of a file, with the words around it and the better one."""
    for text in texts_of(file):
        joined = " ".join(text.split())
        for pattern, better in AVOIDED.items():
            for match in re.finditer(pattern, joined):
                around = joined[max(0, match.start() - 25) : match.end() + 25]
                yield f"{file.relative_to(ROOT)}: ...{around}... ({better})"


def texts_of(file: Path) -> Iterator[str]:
    """Yield the sentences for people in a file: docstrings, messages, help and comments; or paragraphs of a page."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        yield from _python_texts(text)
    elif file.suffix == ".sql":
        yield " ".join(line.removeprefix("--").strip() for line in text.splitlines() if line.startswith("--"))
    else:
        for paragraph in re.split(r"\n\s*\n|\n(?=[-|#]|\d+\. )|(?<=\|) ", prose(text)):
            yield re.sub(r"^[\s#*|-]+", "", paragraph)


def _python_texts(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            # A docstring's paragraphs and "name: meaning" entries begin sentences of their own.
            yield from re.split(r"\n\s*\n", node.value.strip())
    comment = ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comment += " " + token.string.lstrip("# ")
        elif token.type != tokenize.NL and comment:
            yield comment.strip()
            comment = ""
