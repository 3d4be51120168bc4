"""Files that are damaged as a disk would."""

from pathlib import Path


def flip_a_bit(file: Path, place: int | None = None) -> None:
    """Flip a bit of a byte, of that in the middle without a place. The file is a new one, with no other names."""
    contents = bytearray(file.read_bytes())
    contents[len(contents) // 2 if place is None else place] ^= 1
    file.unlink()
    file.write_bytes(contents)
