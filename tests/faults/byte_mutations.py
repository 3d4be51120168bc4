"""Changes of bytes: what disks, networks, editors and programs do to files."""

import random
from collections.abc import Callable, Sequence

Mutation = Callable[[bytearray, random.Random], None]


def _flip(contents: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(contents))
    contents[place] ^= 1 << chance.randrange(8)


def _set(contents: bytearray, chance: random.Random) -> None:
    contents[chance.randrange(len(contents))] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])


def _cut(contents: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(contents))
    del contents[start : start + chance.choice([1, 4, 64, len(contents)])]


def _insert(contents: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(contents))
    contents[start:start] = chance.choice([chance.randbytes(chance.randint(1, 9)), bytes(chance.randint(1, 64))])


def _repeat(contents: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(contents))
    contents[start:start] = contents[start : start + chance.choice([1, 8, 100])]


def _swap(contents: bytearray, chance: random.Random) -> None:
    length = chance.choice([1, 4, 32])
    one, other = sorted(chance.randrange(max(1, len(contents) - length)) for _ in range(2))
    if other - one >= length:
        parts = contents[one : one + length], contents[other : other + length]
        contents[other : other + length], contents[one : one + length] = parts


MUTATIONS: list[Mutation] = [_flip, _set, _cut, _insert, _repeat, _swap]


# Texts and bytes that are easily misread: quotes, delimiters, line ends, encodings, numbers and dates.
HOSTILE = [
    *(b'"', b'""', b'"\n', b',"', b'",', b"'", b"\\", b'\\"', b"\\N", b"#"),
    *(b",", b";", b"\t", b"|", b"::", b"\x01", b",,", b",\n", b"\r", b"\n", b"\r\n", b"\n\n", b"\n\r", b"\x1a"),
    *(b"\0", b"\xef\xbb\xbf", b"\xff", b"\xc3", b"\xe2\x80\xa8", b"\xc2\x85", b"\xc2\xa0", b"\x1f", b"\x0b", b"\x0c"),
    *(b"1e400", b"-1e400", b"inf", b"nan", b"NULL", b"None", b"-0", b"0", b"007", b"1.0", b"1e3", b"1_000", b"1,5"),
    *(
        b"9999-12-31",
        b"0001-01-01",
        b"infinity",
        b"epoch",
        b"9223372036854775807",
        b"9223372036854775808",
        b"-1",
        b"+5",
    ),
    *(b"1.2345678901234568e+18", b"2024-02-30", b"20231215", b"12:00", b" BST", b"Z", b"+02", b" BC", b"0x10", b" "),
    *(b"userId,movieId,timestamp\n", b"PAR1", b"\x1f\x8b", b"(5 rows)\n", b"a" * 3000),
]


def hostile(contents: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(contents) + 1)
    contents[place:place] = chance.choice(HOSTILE)


def field(contents: bytearray, chance: random.Random) -> None:
    """Replace a whole field by a hostile text."""
    marks = [place for place, byte in enumerate(contents) if byte in b',;\t|\r\n"']
    if len(marks) > 1:
        number = chance.randrange(len(marks) - 1)
        contents[marks[number] + 1 : marks[number + 1]] = chance.choice(HOSTILE)


def line(contents: bytearray, chance: random.Random) -> None:
    """Cut, repeat or move a line, which may be the header."""
    lines = bytes(contents).splitlines(keepends=True)
    if lines:
        one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
        what = chance.choice(["cut", "repeat", "header", "move"])
        moved = [] if what == "cut" else [lines[0 if what == "header" else one]]
        rest = lines[:one] + lines[one + 1 :] if what in ("cut", "move") else lines
        contents[:] = b"".join([*rest[:other], *moved, *rest[other:]])


TEXT_MUTATIONS: list[Mutation] = [*MUTATIONS, hostile, hostile, hostile, field, field, field, line]


def mutated(contents: bytes, chance: random.Random, mutations: Sequence[Mutation]) -> tuple[str, bytes]:
    """Change contents one to five times; return the names of the changes, and the changed contents."""
    changed, done = bytearray(contents), []
    for _ in range(chance.choice([1, 1, 1, 2, 2, 5])):
        if changed:
            mutation = chance.choice(mutations)
            mutation(changed, chance)
            done.append(mutation.__name__.strip("_"))
    return ", ".join(done), bytes(changed)
