"""The model directory: written all at once, and read only if every byte is as it was written.

manifest.json        contract version, model id, options, metrics, the SHA-256 of every other file, and of itself
encoder.onnx         the encoder with the masking of seen items and the top-k, without the weights per item
items.parquet        the vocabulary
weights.safetensors  the weights of the encoder, and of the blend if there is one
training.jsonl       one line per epoch
"""

import errno
import hashlib
import json
import re
import stat
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from batchrec.config import EncoderShape, TrainingConfig
from batchrec.errors import ModelError
from batchrec.model.blend import Blend, BlendSizes
from batchrec.model.graph import WEIGHTS, Graph, graph_of
from batchrec.model.graph_check import check_graph
from batchrec.model.parts import (
    MisfitError,
    blend_of,
    check_blend_sizes,
    check_shape,
    is_number,
    read_vocabulary,
    read_weights,
    weight_offsets,
    weight_views,
)
from batchrec.model.vocabulary import Vocabulary
from batchrec.system.atomic import replacing_folder
from batchrec.system.disk import file_sha256, mapped
from batchrec.system.json_text import to_json
from batchrec.tables.schemas import FIRST_ITEM, MODEL_VERSION

MANIFEST = "manifest.json"
ENCODER = "encoder.onnx"
ITEMS = "items.parquet"
TRAINING_LOG = "training.jsonl"

# The size limit of a protobuf. Of the other files, only the weights may need more.
_MAX_BYTES = 2**31 - 1
_MAX_MANIFEST_BYTES = 1 << 20
_RESTORE = "Train again, or restore the directory"


@dataclass(frozen=True)
class Manifest:
    """The manifest of a model: `config` holds its training options, `metrics` the accuracies of the best epoch.

    `encoder` holds the fields of its EncoderShape, `files` the SHA-256 of every other file, and `seal` that of the
    manifest's own text with an empty seal. `blend` holds the fields of its BlendSizes, None if the score is the
    encoder's.
    """

    contract_version: int
    model_id: str
    n_items: int
    encoder: dict[str, Any]
    config: dict[str, Any]
    metrics: dict[str, float]
    files: dict[str, str]
    blend: dict[str, int] | None = None
    seal: str = ""

    def __post_init__(self) -> None:
        # Raises TypeError here rather than when the first user is scored.
        EncoderShape(**self.encoder)
        if self.blend is not None:
            BlendSizes(**self.blend)

    @property
    def shape(self) -> EncoderShape:
        """The shape of the encoder."""
        return EncoderShape(**self.encoder)

    @property
    def blend_sizes(self) -> BlendSizes | None:
        """The sizes of the blend; None without one."""
        return None if self.blend is None else BlendSizes(**self.blend)

    @property
    def has_embeddings(self) -> bool:
        """Whether an encoder was trained, so that the embeddings of items say something."""
        return self.config.get("max_epochs") != 0

    def sealed(self) -> "Manifest":
        """Return the manifest with its seal."""
        return replace(self, seal=_sha256(replace(self, seal="").to_json()))

    def to_json(self) -> bytes:
        """Return the manifest as the bytes of its file."""
        return (to_json(asdict(self), indent=2) + "\n").encode()


@dataclass(frozen=True)
class Model:
    """A loaded model directory; `encoder` is the ONNX protobuf, `weights` the safetensors of its weights.

    blend: None if the score is the encoder's.
    """

    manifest: Manifest
    vocabulary: Vocabulary
    encoder: bytes
    weights: bytes
    blend: Blend | None

    @property
    def graph(self) -> Graph:
        """The graph for a Ranker. Its large tensors are views of `weights`."""
        return graph_of(self.encoder, self.weights)

    @property
    def needs_days(self) -> bool:
        """Whether the score depends on the days of the events, so that scoring reads their timestamps."""
        return self.blend is not None and self.blend.has_habit

    def encoder_weights(self, needed_by: str) -> dict[str, Any]:
        """Return the weights of the encoder by name: views, float32, which cannot be written to.

        Raises ModelError, which names what needs the embeddings of items, if no encoder was trained.
        """
        if not self.manifest.has_embeddings:
            raise ModelError(
                f"model {self.manifest.model_id}: was trained with --max-epochs 0 and has no embeddings of items, "
                f"which {needed_by} needs. Train without --max-epochs 0"
            )
        return dict(weight_views(self.weights))


def load_model(folder: Path) -> Model:
    """Read a model directory, and check every file against the manifest and the parts against each other.

    Raises ModelError if a file is missing or changed, a part does not fit, or the contract version is another one.
    """
    for _ in range(3):
        manifest = read_manifest(folder)
        contents: dict[str, bytes] = {}
        try:
            for name in manifest.files:
                contents[name] = _read(folder / name, None if name == WEIGHTS else _MAX_BYTES)
        except OSError as error:
            problem = f"{folder}: cannot read {name}: {error.strerror}"
        else:
            changed = [name for name, digest in manifest.files.items() if _sha256(contents[name]) != digest]
            if not changed:
                return _assemble(manifest, contents, folder)
            problem = f"{folder}: {changed[0]} is not the file that was written: its SHA-256 has changed"
        # A newer model may have replaced the directory between two reads.
        if read_manifest(folder) == manifest:
            break
    raise ModelError(f"{problem}. {_RESTORE}")


def _assemble(manifest: Manifest, contents: dict[str, bytes], folder: Path) -> Model:
    """Make a model from the contents of its files. Raises ModelError if they do not fit each other."""
    part = WEIGHTS
    try:
        # Their sizes are checked against the file, which bounds the sizes that the other parts may claim.
        weights = read_weights(contents[WEIGHTS], manifest.n_items + FIRST_ITEM, manifest.shape, manifest.blend_sizes)
        part = ITEMS
        vocabulary = read_vocabulary(contents[ITEMS], manifest.n_items)
        part = ENCODER
        check_graph(contents[ENCODER], weights, weight_offsets(contents[WEIGHTS]))
    except MisfitError as error:
        raise ModelError(f"{folder}: {part}: {error}. {_RESTORE}") from error
    return Model(manifest, vocabulary, contents[ENCODER], contents[WEIGHTS], blend_of(weights))


def read_graph(folder: Path) -> Graph:
    """Read the graph of a model directory unchecked, and map its weights; the directory may lack a manifest."""
    return graph_of((folder / ENCODER).read_bytes(), mapped(folder / WEIGHTS))


def model_files(folder: Path) -> list[Path]:
    """List the files of a model directory, which no job may overwrite."""
    return [folder / name for name in (MANIFEST, ENCODER, ITEMS, WEIGHTS, TRAINING_LOG)]


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a model directory. Raises ModelError if it is missing or not as it was written."""
    file = folder / MANIFEST
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such model directory. Run batchrec train, or pass --model FOLDER")
    try:
        contents = _read(file, _MAX_MANIFEST_BYTES)
        fields = json.loads(contents)
        version = fields["contract_version"]
        if type(version) is not int or version != MODEL_VERSION:
            raise ModelError(
                f"{folder}: the contract version is {version!r:.40}; expected {MODEL_VERSION}. Train again"
            )
        manifest = Manifest(**fields)
        if contents != manifest.sealed().to_json():
            raise ModelError(f"{file}: is not the file that was written. {_RESTORE}")
        _check_manifest(manifest)
    except MisfitError as error:
        raise ModelError(f"{file}: {error}. {_RESTORE}") from error
    # Invalid UTF-8, invalid JSON and integers of more digits than Python reads are each a ValueError.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{file}: cannot be read: {error!r:.200}. {_RESTORE}") from error
    return manifest


def _check_manifest(manifest: Manifest) -> None:
    """Raise MisfitError unless every value of a manifest has the type and range expected of it."""
    files = manifest.files
    missing = {ENCODER, ITEMS, WEIGHTS} - files.keys()
    unexpected = files.keys() - {ENCODER, ITEMS, WEIGHTS, TRAINING_LOG}
    if missing or unexpected:
        raise MisfitError(f"lists the wrong files: missing {sorted(missing)}, unexpected {sorted(unexpected)!s:.100}")
    if not all(isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) for digest in files.values()):
        raise MisfitError("lists a file without its SHA-256")
    if type(manifest.n_items) is not int or manifest.n_items < 1:
        raise MisfitError(f"n_items is {manifest.n_items!r:.40}; expected an integer, 1 or more")
    check_shape(manifest.shape)
    if manifest.blend_sizes is not None:
        check_blend_sizes(manifest.blend_sizes)
    if manifest.model_id != _model_id(files):
        raise MisfitError(
            f"model_id is {manifest.model_id!r:.40}; expected {_model_id(files)} by its weights and items"
        )
    metrics = manifest.metrics
    if not isinstance(metrics, dict) or not all(map(is_number, metrics.values())):
        raise MisfitError(f"metrics are {metrics!r:.60}; expected a number for each name")
    if not isinstance(manifest.config, dict):
        raise MisfitError(f"config is {manifest.config!r:.60}; expected the options of the training")


def _read(file: Path, max_bytes: int | None) -> bytes:
    """Read a file of a model. Raises OSError if it is a link, a pipe or a device, or too large."""
    status = file.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.EINVAL, "is a link; expected a file", str(file))
    # Reading a pipe would wait for a writer.
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(file))
    if max_bytes is not None and status.st_size > max_bytes:
        raise OSError(errno.EFBIG, f"has {status.st_size:,} bytes; expected {max_bytes:,} at most", str(file))
    try:
        return file.read_bytes()
    except MemoryError as error:
        raise OSError(errno.ENOMEM, f"has {status.st_size:,} bytes, more than the free memory", str(file)) from error


def _model_id(files: Mapping[str, str]) -> str:
    """Derive the id from what ranks: the same weights over the same items are the same model."""
    return _sha256((files[WEIGHTS] + files[ITEMS]).encode())[:12]


def _sha256(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()


def replacing_model(out: Path) -> AbstractContextManager[Path]:
    """Yield a new folder to fill, which replaces the model directory `out` if the block ends without an error.

    Raises ConfigError if `out` cannot be written, or exists and is not a model directory, or holds other files too.
    """
    return replacing_folder(out, marked_by=[MANIFEST], holds=[path.name for path in model_files(out)])


def write_manifest(  # noqa: PLR0913, PLR0917 - each part of a manifest comes from elsewhere
    folder: Path,
    vocabulary: Vocabulary,
    shape: EncoderShape,
    config: TrainingConfig,
    metrics: dict[str, float],
    blend: BlendSizes | None = None,
) -> Manifest:
    """Write the vocabulary, then the manifest with the SHA-256 of every file in the folder."""
    pq.write_table(vocabulary.to_table(), folder / ITEMS, write_page_checksum=True)
    files = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
    manifest = Manifest(
        MODEL_VERSION,
        _model_id(files),
        len(vocabulary),
        asdict(shape),
        asdict(config),
        metrics,
        files,
        None if blend is None else asdict(blend),
    ).sealed()
    (folder / MANIFEST).write_bytes(manifest.to_json())
    return manifest
