"""The model directory: written whole, read only if every byte is what was written.

manifest.json        contract version, model id, options, metrics, the SHA-256 of every other file, and of itself
encoder.onnx         the encoder with the masking of seen items and the top-k
items.parquet        the vocabulary
weights.safetensors  the encoder's weights
training.jsonl       a line for every epoch
"""

import ctypes
import errno
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchrec.config import EncoderShape, TrainingConfig
from batchrec.errors import ConfigError, ModelError
from batchrec.json_text import to_json
from batchrec.schemas import MODEL_VERSION
from batchrec.tables import check_writable
from batchrec.temporaries import modes_by_umask, put_on_disk, temporary_folder
from batchrec.vocabulary import Vocabulary

MANIFEST = "manifest.json"
ENCODER = "encoder.onnx"
ITEMS = "items.parquet"
WEIGHTS = "weights.safetensors"
TRAINING_LOG = "training.jsonl"


@dataclass(frozen=True)
class Manifest:
    """What a model is: `config` holds its training options, `metrics` those of the epoch that was kept.

    `encoder` holds the fields of its EncoderShape.
    `files` holds the SHA-256 of every other file, `seal` that of the manifest's own text while the seal is empty.
    """

    contract_version: int
    model_id: str
    n_items: int
    encoder: dict[str, Any]
    config: dict[str, Any]
    metrics: dict[str, float]
    files: dict[str, str]
    seal: str = ""

    def __post_init__(self) -> None:
        # Refused here, by a TypeError, rather than when the first user is scored.
        EncoderShape(**self.encoder)

    @property
    def shape(self) -> EncoderShape:
        """The shape of the encoder."""
        return EncoderShape(**self.encoder)

    def sealed(self) -> "Manifest":
        """Give the manifest with its seal."""
        return replace(self, seal=_sha256(replace(self, seal="").to_json()))

    def to_json(self) -> bytes:
        """Spell the manifest as its file does."""
        return (to_json(asdict(self), indent=2) + "\n").encode()


@dataclass(frozen=True)
class Model:
    """A model directory as it was read; `encoder` is the ONNX graph, `weights` the safetensors of its weights."""

    manifest: Manifest
    vocabulary: Vocabulary
    encoder: bytes
    weights: bytes


def load_model(folder: Path) -> Model:
    """Read a model directory and check every file against its manifest.

    Raises ModelError where a file is missing or changed, or the contract is of another version.
    """
    for _ in range(3):
        manifest = read_manifest(folder)
        try:
            contents = {name: (folder / name).read_bytes() for name in manifest.files}
        except OSError as error:
            problem = f"{folder}: cannot read {Path(error.filename).name}: {error.strerror}"
        else:
            changed = [name for name, digest in manifest.files.items() if _sha256(contents[name]) != digest]
            if not changed:
                vocabulary = _read_vocabulary(contents[ITEMS], folder)
                return Model(manifest, vocabulary, contents[ENCODER], contents[WEIGHTS])
            problem = f"{folder}: {changed[0]} is not the file that was written: its SHA-256 has changed"
        # A newer model may have taken the directory's place between two reads.
        if read_manifest(folder) == manifest:
            break
    raise ModelError(f"{problem}. Train again, or restore the directory")


def read_manifest(folder: Path) -> Manifest:
    """Read what a model directory is. Raises ModelError where it is none, or its manifest has changed."""
    file = folder / MANIFEST
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such model directory. Run batchrec train, or pass --model FOLDER")
    try:
        contents = file.read_bytes()
        found = json.loads(contents)
        version = found["contract_version"]
        if version != MODEL_VERSION:
            raise ModelError(f"{folder}: the contract version is {version}; expected {MODEL_VERSION}. Train again")
        manifest = Manifest(**found)
        missing = {ENCODER, ITEMS, WEIGHTS} - manifest.files.keys()
        strangers = manifest.files.keys() - {ENCODER, ITEMS, WEIGHTS, TRAINING_LOG}
        if missing or strangers:
            raise ModelError(
                f"{file}: lists the wrong files: missing {sorted(missing)}, unexpected {sorted(strangers)}"
            )
        if contents != manifest.sealed().to_json():
            raise ModelError(f"{file}: is not the file that was written. Train again, or restore the directory")
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{file}: cannot be read: {error!r}. Train again, or restore the directory") from error
    return manifest


def _read_vocabulary(contents: bytes, folder: Path) -> Vocabulary:
    try:
        items = pq.read_table(pa.BufferReader(contents)).combine_chunks()
    except pa.ArrowException as error:
        raise ModelError(f"{folder}: {ITEMS} is not a Parquet file: {error}. Train again") from error
    return Vocabulary(items["item_id"].chunk(0), items["n_events"].to_numpy())


def _sha256(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()


def file_sha256(file: Path) -> str:
    """Give the SHA-256 of a file's bytes, which need not fit into memory."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@contextmanager
def replacing_folder(out: Path, marked_by: Sequence[str] = (MANIFEST,)) -> Iterator[Path]:
    """Yield a new folder beside `out` to fill, which takes the place of `out` if the block ends without an error.

    It holds files alone. When the block has ended a power cut changes nothing of what is in the place of `out`.
    marked_by: the files by any of which a folder of the kind is known.
    Raises ConfigError where `out` cannot be written or is something other than such a folder.
    """
    check_writable(out)
    is_marked = any((out / name).is_file() for name in marked_by)
    if out.exists() and not is_marked and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: exists and holds no {' or '.join(marked_by)}. Move it away, or pass another --out")
    try:
        _, mode = modes_by_umask(out)
        with temporary_folder(out) as temporary:
            yield temporary
            temporary.chmod(mode)
            put_on_disk([*temporary.iterdir(), temporary, temporary.parent])
            _replace_folder(temporary, Path(os.path.realpath(out)))
            # Before the files of the old folder go: their names must not come back without them.
            put_on_disk([temporary.parent])
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written: {error.strerror or error}") from error


def write_manifest(
    folder: Path, vocabulary: Vocabulary, shape: EncoderShape, config: TrainingConfig, metrics: dict[str, float]
) -> Manifest:
    """Write the vocabulary, then seal the folder: the manifest holds the SHA-256 of all that lies in it."""
    pq.write_table(vocabulary.to_table(), folder / ITEMS)
    files = {path.name: _sha256(path.read_bytes()) for path in sorted(folder.iterdir())}
    # Named by what ranks: the same weights over the same items are the same model.
    model_id = _sha256((files[WEIGHTS] + files[ITEMS]).encode())[:12]
    manifest = Manifest(
        MODEL_VERSION, model_id, len(vocabulary), asdict(shape), asdict(config), metrics, files
    ).sealed()
    (folder / MANIFEST).write_bytes(manifest.to_json())
    return manifest


def _replace_folder(new: Path, old: Path) -> None:
    """Put `new` in the place of `old`; what was there is left under the name of `new`."""
    if not old.exists():
        new.rename(old)
    elif not _exchange(new, old):
        # Without an exchange there is a moment in which a reader finds no model; what was there is never lost.
        aside = new.with_suffix(".old")
        old.rename(aside)
        new.rename(old)
        aside.rename(new)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step where that can be done: by renameat2(2) on Linux, renamex_np on macOS."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform == "linux" and hasattr(libc, "renameat2"):
        at_fdcwd, rename_exchange = -100, 2
        failed = libc.renameat2(at_fdcwd, names[0], at_fdcwd, names[1], rename_exchange)
    elif sys.platform == "darwin":
        rename_swap = 2
        failed = libc.renamex_np(*names, rename_swap)
    else:
        return False
    if failed and ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return not failed
