"""The models folder: a version for every training that passed the gate, and a link to the one in use."""

import re
import shutil
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from batchrec.artifact import Manifest, load_model, read_manifest
from batchrec.errors import ConfigError, ModelError
from batchrec.temporaries import put_on_disk

_CURRENT = "current"
_VERSION = re.compile(r"\d{4}-\d\d-\d\d-[0-9a-f]+")


@dataclass(frozen=True)
class Version:
    """A model of the folder, named by the night it was trained in and by its id."""

    folder: Path

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def hidden(self) -> Path:
        """The name of its folder while it comes or goes: no reader takes half of one for a model."""
        return self.folder.with_name(f".{self.name}")

    @property
    def trained_on(self) -> date:
        """The run date of the night it was trained in."""
        return date.fromisoformat(self.name[:10])

    @property
    def manifest(self) -> Manifest:
        """What the model is. Raises ModelError where it is damaged."""
        return read_manifest(self.folder)


@dataclass(frozen=True)
class Models:
    """The versions in a folder; `current` in it is a link to the one in use, for every reader."""

    folder: Path

    @property
    def current(self) -> Version | None:
        """The model in use, whole or not. Raises ModelError where `current` is no link to one of the folder's."""
        link = self.folder / _CURRENT
        if not link.is_symlink():
            if link.exists():
                raise ModelError(
                    f"{link}: is no link to a model. Move it away; batchrec models list shows what there is"
                )
            return None
        name = str(link.readlink())
        if not _VERSION.fullmatch(name):
            raise ModelError(f"{link}: leads to {name}, which is no model of this folder. Pass one to models rollback")
        return Version(self.folder / name)

    def in_use(self) -> Version:
        """Give the model in use. Raises ModelError where there is none."""
        current = self.current
        if current is None:
            raise ModelError(f"{self.folder}: no model is in use yet. Start batchrec run")
        return current

    def versions(self) -> list[Version]:
        """List all models, the oldest training first."""
        if not self.folder.is_dir():
            return []
        folders = [path for path in self.folder.iterdir() if _VERSION.fullmatch(path.name)]
        # Two of one night stand in the order in which they came to be there.
        return [Version(path) for path in sorted(folders, key=lambda path: (path.name[:10], path.stat().st_mtime_ns))]

    def add(self, model: Path, run_date: date) -> Version:
        """Copy a complete model directory, on this disk or another, into the folder, not in use yet."""
        version = Version(self.folder / f"{run_date}-{read_manifest(model).model_id}")
        # Else a run that was killed after this has left it: the same weights over the same items.
        if not version.folder.exists():
            shutil.rmtree(version.hidden, ignore_errors=True)
            version.hidden.mkdir(0o700)
            shutil.copytree(model, version.hidden, dirs_exist_ok=True)
            put_on_disk(version.hidden.iterdir())
            version.hidden.rename(version.folder)
        return version

    def use(self, version: Version) -> None:
        """Let `current` lead to a version: one rename. Raises ModelError where a byte of the model has changed."""
        load_model(version.folder)
        link = self.folder / f".{_CURRENT}.tmp"
        link.unlink(missing_ok=True)
        link.symlink_to(version.name)
        link.replace(self.folder / _CURRENT)

    def find(self, name: str) -> Version:
        """Find a version by its name. Raises ConfigError where there is none."""
        for version in self.versions():
            if version.name == name:
                return version
        known = ", ".join(version.name for version in self.versions()) or "none"
        raise ConfigError(f"{self.folder}: no model {name!r}; found {known}")

    def before_current(self) -> Version:
        """Give the version before the one in use. Raises ConfigError where there is none."""
        versions, current = self.versions(), self.current
        place = versions.index(current) if current else 0
        if place == 0:
            raise ConfigError(
                f"{self.folder}: there is no model before {versions[0].name if versions else 'the first'}"
            )
        return versions[place - 1]

    def prune(self, keep: int) -> list[str]:
        """Delete all but the newest `keep` versions and the one in use; gives the names of those that went."""
        current = self.current
        gone = [version for version in self.versions()[:-keep] if current is None or version.name != current.name]
        for version in gone:
            version.folder.rename(version.hidden)
        for folder in self.folder.glob(".????-??-??-*"):
            shutil.rmtree(folder)
        return [version.name for version in gone]
