"""A crash model: makes, from the record of a run, the states that the disks may have after a power cut.

The model is that of ALICE (Pillai et al., OSDI 2014). Changes of the names in a folder reach the disk in their order,
independently of other folders, and are certain only after an fsync of the folder. The contents of a file are certain
only after an fsync of the file.
"""

import errno
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest

_CHANGES = {"os.rename", "os.remove", "os.link", "os.symlink", "os.mkdir", "os.rmdir", "ctypes.dlopen"}
Names = dict[str, int]


@dataclass
class Node:
    """A folder, file or link: the versions of its contents, oldest first, and how many are certainly on the disk."""

    versions: list[Names | bytes | str]
    n_synced: int = 1

    @property
    def is_folder(self) -> bool:
        return isinstance(self.versions[0], dict)


@dataclass(frozen=True)
class Moment:
    """A moment of a run: for each node, the newest version that is certain to be on the disk, and the newest of all."""

    event: str
    versions: Mapping[int, tuple[int, int]]


@dataclass
class Disks:
    """The folders in `root`, each of them a disk, and their changes while `recorded`."""

    root: Path
    nodes: dict[int, Node] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    places: dict[tuple[int, int], int] = field(default_factory=dict)
    top: Names = field(default_factory=dict)

    def look(self, event: str) -> None:
        """Record the changes since the last look."""
        seen: dict[tuple[int, int], int] = {}
        is_first = not self.nodes
        self.top = {disk.name: self._see(disk, seen) for disk in sorted(self.root.iterdir())}
        # The inode of a deleted file may be used again for another file.
        self.places = seen
        if is_first:
            self.sync_all()
        self.moments.append(
            Moment(event, {number: (node.n_synced - 1, len(node.versions) - 1) for number, node in self.nodes.items()})
        )

    def _see(self, path: Path, seen: dict[tuple[int, int], int]) -> int:
        found = path.lstat()
        place = (found.st_dev, found.st_ino)
        if place in seen:
            return seen[place]
        number = seen[place] = self.places.get(place, len(self.nodes))
        held: Names | bytes | str
        if path.is_symlink():
            held = str(path.readlink())
        elif path.is_dir():
            self.nodes.setdefault(number, Node([{}]))
            held = {entry.name: self._see(entry, seen) for entry in sorted(path.iterdir())}
        else:
            self.nodes.setdefault(number, Node([b""]))
            held = path.read_bytes()
        node = self.nodes.setdefault(number, Node([held]))
        if node.versions[-1] != held:
            node.versions.append(held)
        return number

    def sync(self, opened: int) -> None:
        found = os.fstat(opened)
        number = self.places.get((found.st_dev, found.st_ino))
        if number is not None:
            self.nodes[number].n_synced = len(self.nodes[number].versions)

    def sync_all(self) -> None:
        for node in self.nodes.values():
            node.n_synced = len(node.versions)

    def states(self, moment: Moment, chance: random.Random, most: int) -> "list[State]":
        """List states after a power cut at a moment, which loses all, parts or none of what was not synced.

        The last state is that after a kill. most: maximum number of states that lose parts.
        """
        open_folders = [
            number
            for number, (synced, newest) in moment.versions.items()
            if self.nodes[number].is_folder and newest > synced
        ]
        ranges = [range(moment.versions[number][0], moment.versions[number][1] + 1) for number in open_folders]
        combinations = list(product(*ranges)) if _size(ranges) <= 64 else []
        while len(combinations) < 64 and _size(ranges) > 64:
            combinations.append(tuple(chance.choice(options) for options in ranges))
        lost, kept = tuple(options[0] for options in ranges), tuple(options[-1] for options in ranges)
        others = [one for one in combinations if one not in {lost, kept}]
        chosen = [lost, *chance.sample(others, min(most, len(others))), *([kept] if kept != lost else [])]
        return [
            State(self, moment, dict(zip(open_folders, one, strict=True)), _torn(chance, number))
            for number, one in enumerate(chosen)
        ] + [State(self, moment, dict(zip(open_folders, kept, strict=True)), lambda contents: contents, is_kill=True)]


def _size(ranges: list[range]) -> int:
    size = 1
    for options in ranges:
        size *= len(options)
    return size


def _torn(chance: random.Random, number: int) -> Callable[[bytes], bytes]:
    """Return a function that keeps none, half, or all of the contents of a file that was not synced."""
    way = number % 3 if number else chance.randrange(3)
    return lambda contents: contents[: (0, len(contents) // 2, len(contents))[way]]


@dataclass(frozen=True)
class State:
    """The contents of the disks after a power cut, or after a kill, which loses nothing and syncs nothing."""

    disks: Disks
    moment: Moment
    folders: Mapping[int, int]
    torn: Callable[[bytes], bytes]
    is_kill: bool = False

    def build(self, root: Path) -> Disks:
        """Make the folders in `root`; return disks that start with these."""
        made: dict[int, Path] = {}
        root.mkdir(parents=True)
        for name, number in self.disks.top.items():
            self._make(number, root / name, made)
        if not self.is_kill:
            return Disks(root)
        nodes = {
            number: Node(list(self.disks.nodes[number].versions[: newest + 1]), synced + 1)
            for number, (synced, newest) in self.moment.versions.items()
        }
        places = {(path.lstat().st_dev, path.lstat().st_ino): number for number, path in made.items()}
        return Disks(root, nodes, [], places)

    def _make(self, number: int, path: Path, made: dict[int, Path]) -> None:
        held = self.held(number)
        if isinstance(held, dict):
            path.mkdir()
            for name, entry in held.items():
                self._make(entry, path / name, made)
        elif number in made:
            os.link(made[number], path, follow_symlinks=False)
        elif isinstance(held, str):
            path.symlink_to(held)
        else:
            path.write_bytes(held)
        made.setdefault(number, path)

    def held(self, number: int) -> Names | bytes | str:
        """Return the contents of a node in this state."""
        synced, newest = self.moment.versions[number]
        versions = self.disks.nodes[number].versions
        if self.disks.nodes[number].is_folder:
            return versions[self.folders.get(number, newest)]
        contents = versions[newest]
        return self.torn(contents) if newest > synced and isinstance(contents, bytes) else contents

    def signature(self) -> str:
        """Return a text that is equal for states of the same names and contents; a kill differs from a power cut."""

        def of(number: int) -> Any:
            held = self.held(number)
            return sorted((name, of(entry)) for name, entry in held.items()) if isinstance(held, dict) else held

        return repr((self.is_kill and self.moment.event, [of(number) for number in self.disks.top.values()]))


_active: list[Disks] = []
_is_looking = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    """Look before each change of a file or folder, to record the change before it."""
    is_write = event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
    if _active and (is_write or event in _CHANGES):
        _look(f"{event} {arguments[:2]}")


def _look(event: str) -> None:
    global _is_looking  # noqa: PLW0603 - the hook is the process's
    if _is_looking:
        return
    _is_looking = True
    try:
        _active[-1].look(event)
    finally:
        _is_looking = False


_hooks: list[Callable[..., None]] = []


@contextmanager
def recorded(disks: Disks, apart: bool) -> Iterator[None]:
    """Record all changes of the disks in the block, and each fsync. apart: a hard link to another disk is an error."""
    if not _hooks:
        # Python cannot remove an audit hook.
        sys.addaudithook(_hook)
        _hooks.append(_hook)
    link = os.link

    # Replaces the real fsync, because these disks are only a model.
    def seen_fsync(opened: int) -> None:
        _look("fsync")
        disks.sync(opened)

    def link_on_a_disk(source: Any, name: Any, **options: Any) -> None:
        if apart and _disk(disks.root, Path(source)) != _disk(disks.root, Path(name)):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source), None, str(name))
        link(source, name, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", seen_fsync)
        patch.setattr(os, "link", link_on_a_disk)
        disks.look("start")
        _active.append(disks)
        try:
            yield
        finally:
            _look("end")
            _active.pop()


def _disk(root: Path, path: Path) -> str:
    return path.resolve().relative_to(root.resolve()).parts[0]
