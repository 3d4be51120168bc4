"""The model registry: one version per training that passed its gate, and a link to the model in use."""

import logging
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

_log = logging.getLogger(__name__)

_CURRENT = "current"
_VERSION = re.compile(r"(\d{4}-\d\d-\d\d)-[0-9a-f]+")


@dataclass(frozen=True)
class ModelVersion:
    """A model of the registry, named by the run date of its training and its model id."""

    folder: Path

    @property
    def name(self) -> str:
        """The name of the version's folder."""
        return self.folder.name

    @property
    def trained_on(self) -> date:
        """The run date of the night that trained the model."""
        return date.fromisoformat(self.name[:10])

    @property
    def manifest(self) -> Manifest:
        """The manifest of the model. Raises ModelError if it is damaged."""
        return read_manifest(self.folder)


def _is_version(name: str) -> bool:
    match = _VERSION.fullmatch(name)
    return match is not None and parse_date(match[1]) is not None


@dataclass(frozen=True)
class ModelRegistry:
    """The model versions in `folder`. Its link `current` leads every reader to the model in use."""

    folder: Path

    @property
    def current(self) -> ModelVersion | None:
        """The model in use, intact or not. Raises ModelError if `current` is not a link to a model of this folder."""
        link = self.folder / _CURRENT
        self._check_link()
        if not link.is_symlink():
            return None
        name = str(link.readlink())
        if not _is_version(name):
            raise ModelError(
                f"{link}: links to {name}, which is not a model in this folder. Run batchrec models rollback NAME"
            )
        return ModelVersion(self.folder / name)

    def _check_link(self) -> None:
        link = self.folder / _CURRENT
        if link.exists() and not link.is_symlink():
            raise ModelError(f"{link}: is not a link to a model. Move it away; batchrec models list shows the models")

    def in_use(self) -> ModelVersion:
        """Return the model in use. Raises ModelError if there is none."""
        current = self.current
        if current is None:
            raise ModelError(f"{self.folder}: no model is in use yet. Run batchrec run")
        return current

    def versions(self) -> list[ModelVersion]:
        """List all models, the oldest training first."""
        if not self.folder.is_dir():
            return []
        folders = [path for path in self.folder.iterdir() if _is_version(path.name) and path.is_dir()]
        # Two models of one night are listed in the order in which they were added.
        return [
            ModelVersion(path) for path in sorted(folders, key=lambda path: (path.name[:10], path.stat().st_mtime_ns))
        ]

    def add(self, model: Path, run_date: date) -> ModelVersion:
        """Copy a complete model directory into the registry, also from another disk. It is not in use yet."""
        manifest = read_manifest(model)
        version = ModelVersion(self.folder / f"{run_date}-{manifest.model_id}")
        # Replaces the copy of a run that was killed after this step, or one that was damaged since.
        with replacing_folder(version.folder, marked_by=(MANIFEST, *manifest.files)) as folder:
            for name in (MANIFEST, *manifest.files):
                shutil.copy2(model / name, folder)
        return version

    def use(self, version: ModelVersion) -> None:
        """Point `current` to a version by one rename, which a power cut does not undo.

        Raises ModelError if a byte of the model has changed, if its id differs from its name, or if `current` is not a
        link.
        """
        self._check_link()
        model_id = load_model(version.folder).manifest.model_id
        if not version.name.endswith(f"-{model_id}"):
            raise ModelError(
                f"{version.folder}: holds model {model_id}, but its name says another. Pass another version"
            )
        link = self.folder / f".{_CURRENT}.tmp"
        link.unlink(missing_ok=True)
        link.symlink_to(version.name)
        put_on_disk([self.folder])
        link.replace(self.folder / _CURRENT)
        put_on_disk([self.folder])

    def find(self, name: str) -> ModelVersion:
        """Return the version of a name. Raises ConfigError if there is none."""
        for version in self.versions():
            if version.name == name:
                return version
        known = ", ".join(version.name for version in self.versions()) or "none"
        raise ConfigError(f"{self.folder}: no model {name!r}; found {known}")

    def find_intact(self, name: str) -> ModelVersion | None:
        """Return the version of a name; None, with a warning, if it is lost or damaged."""
        try:
            version = self.find(name)
            load_model(version.folder)
        except (ConfigError, ModelError) as error:
            _log.warning("%s", error)
            return None
        return version

    def before_current(self) -> ModelVersion:
        """Return the version before the model in use. Raises ConfigError if there is none."""
        versions, current = self.versions(), self.current
        if current in versions:
            versions = versions[: versions.index(current)]
        elif current is not None:  # its folder was deleted
            versions = [version for version in versions if version.trained_on <= current.trained_on]
        if current is None or not versions:
            raise ConfigError(f"{self.folder}: no model exists before {current.name if current else 'the first run'}")
        return versions[-1]

    def prune(self, keep: int) -> list[str]:
        """Delete all versions except the newest `keep` and the one in use. Returns the names of the deleted ones."""
        current = self.current
        gone = [version for version in self.versions()[:-keep] if current is None or version.name != current.name]
        for version in gone:
            # Hidden by one rename, so that no reader takes half a folder for a model.
            version.folder.rename(version.folder.with_name(f".{version.name}"))
        put_on_disk([self.folder])
        for folder in self.folder.glob(".????-??-??-*"):
            remove(folder)
        return [version.name for version in gone]
