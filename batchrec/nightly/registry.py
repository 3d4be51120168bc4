"""The models folder: a version for every training that passed the gate, and a link to the one in use."""

import re
import shutil
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from batchrec.config import parse_date
from batchrec.errors import ConfigError, ModelError
from batchrec.model.directory import MANIFEST, Manifest, load_model, read_manifest
from batchrec.system.atomic import replacing_folder
from batchrec.system.disk import put_on_disk, remove

_CURRENT = "current"
_VERSION = re.compile(r"(\d{4}-\d\d-\d\d)-[0-9a-f]+")


@dataclass(frozen=True)
class Version:
    """A model of the folder, named by the night it was trained in and by its id."""

    folder: Path

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def trained_on(self) -> date:
        """The run date of the night it was trained in."""
        return date.fromisoformat(self.name[:10])

    @property
    def manifest(self) -> Manifest:
        """What the model is. Raises ModelError where it is damaged."""
        return read_manifest(self.folder)


def _is_version(name: str) -> bool:
    found = _VERSION.fullmatch(name)
    return found is not None and parse_date(found[1]) is not None


@dataclass(frozen=True)
class Models:
    """The versions in a folder; `current` in it is a link to the one in use, for every reader."""

    folder: Path

    @property
    def current(self) -> Version | None:
        """The model in use, whole or not. Raises ModelError where `current` is no link to one of the folder's."""
        link = self.folder / _CURRENT
        self._check_link()
        if not link.is_symlink():
            return None
        name = str(link.readlink())
        if not _is_version(name):
            raise ModelError(f"{link}: leads to {name}, which is no model of this folder. Pass one to models rollback")
        return Version(self.folder / name)

    def _check_link(self) -> None:
        link = self.folder / _CURRENT
        if link.exists() and not link.is_symlink():
            raise ModelError(f"{link}: is no link to a model. Move it away; batchrec models list shows what there is")

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
        folders = [path for path in self.folder.iterdir() if _is_version(path.name) and path.is_dir()]
        # Two of one night stand in the order in which they came to be there.
        return [Version(path) for path in sorted(folders, key=lambda path: (path.name[:10], path.stat().st_mtime_ns))]

    def add(self, model: Path, run_date: date) -> Version:
        """Copy a complete model directory, on this disk or another, into the folder, not in use yet."""
        manifest = read_manifest(model)
        version = Version(self.folder / f"{run_date}-{manifest.model_id}")
        # In the place of one that a run has left that was killed after this, or that has been damaged since.
        with replacing_folder(version.folder, marked_by=(MANIFEST, *manifest.files)) as folder:
            shutil.copytree(model, folder, dirs_exist_ok=True)
        return version

    def use(self, version: Version) -> None:
        """Let `current` lead to a version: one rename, that a power cut does not undo.

        Raises ModelError where a byte of the model has changed, it is another model than its name says, or `current` is
        something other than a link.
        """
        self._check_link()
        model_id = load_model(version.folder).manifest.model_id
        if not version.name.endswith(f"-{model_id}"):
            raise ModelError(f"{version.folder}: holds model {model_id}, by its name another one. Pass another version")
        link = self.folder / f".{_CURRENT}.tmp"
        link.unlink(missing_ok=True)
        link.symlink_to(version.name)
        put_on_disk([self.folder])
        link.replace(self.folder / _CURRENT)
        put_on_disk([self.folder])

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
        if current in versions:
            versions = versions[: versions.index(current)]
        elif current is not None:  # its folder is gone
            versions = [version for version in versions if version.trained_on <= current.trained_on]
        if current is None or not versions:
            raise ConfigError(f"{self.folder}: there is no model before {current.name if current else 'the first'}")
        return versions[-1]

    def prune(self, keep: int) -> list[str]:
        """Delete all but the newest `keep` versions and the one in use; gives the names of those that went."""
        current = self.current
        gone = [version for version in self.versions()[:-keep] if current is None or version.name != current.name]
        for version in gone:
            # Out of sight in one step: no reader takes half of one for a model.
            version.folder.rename(version.folder.with_name(f".{version.name}"))
        put_on_disk([self.folder])
        for folder in self.folder.glob(".????-??-??-*"):
            remove(folder)
        return [version.name for version in gone]
