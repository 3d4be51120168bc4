"""train: fit the encoder to the histories, keep its best epoch, export it and write the model directory."""

import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb
import numpy as np
import torch
from safetensors.torch import save

from batchrec.artifact import ENCODER, TRAINING_LOG, WEIGHTS, replacing_folder, write_manifest
from batchrec.batching import Histories
from batchrec.config import Device, TrainingConfig
from batchrec.encoder import Encoder
from batchrec.errors import DeviceError, InputError
from batchrec.export import check_parity, export_encoder
from batchrec.fitting import fit
from batchrec.holdout import hold_out
from batchrec.queries import connect, literal, select
from batchrec.tables import open_sequences
from batchrec.vocabulary import Vocabulary

_log = logging.getLogger(__name__)

_USERS_AT_A_TIME = 8192


@dataclass(frozen=True)
class TrainingReport:
    """What was trained on and what came out; the accuracies are those of the epoch that was kept."""

    out: str
    model_id: str
    device: str
    users: int
    items: int
    held_out_users: int
    epochs: int
    best_epoch: int
    ndcg_at_10: float
    hr_at_10: float
    popularity_ndcg_at_10: float
    popularity_hr_at_10: float
    onnx_difference: float
    seconds: float


def train(
    sequences: Path = Path("sequences.parquet"), config: TrainingConfig = TrainingConfig(), out: Path = Path("model")
) -> TrainingReport:
    """Train on a sequences table and write the model directory `out`, replacing an older one when all is done.

    Raises InputError for a table that breaks its contract or has nothing to learn from, DeviceError where the device
    is not there, ConfigError where `out` cannot be written or the loss diverges. Then `out` stays as it was.
    """
    started = time.monotonic()
    device = _device(config.device)
    with replacing_folder(out) as folder:
        vocabulary, histories = _read_histories(sequences)
        generator = np.random.default_rng(config.seed)
        training, held_out = hold_out(histories, config.validation_users, generator)
        _log.info(
            "training on %d users, %d items, %d events, on %s",
            len(training),
            len(vocabulary),
            len(training.items),
            device,
        )
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            # Dropout draws from torch's global generator and takes no other: seed that, and put it back afterwards.
            torch.manual_seed(config.seed)
            encoder = Encoder(vocabulary.size, config).to(device)
            epochs = fit(encoder, training, held_out, config, generator)
        best = max(epochs, key=lambda epoch: epoch.ndcg_at_10)
        encoder = encoder.cpu().eval()
        export_encoder(encoder, folder / ENCODER)
        difference = check_parity(encoder, folder / ENCODER, held_out.histories, config.max_len)
        (folder / WEIGHTS).write_bytes(save(encoder.state_dict()))
        lines = [json.dumps(asdict(epoch)) + "\n" for epoch in epochs]
        (folder / TRAINING_LOG).write_text("".join(lines), encoding="utf-8")
        measured = {name: value for name, value in asdict(best).items() if name.endswith("_at_10")}
        manifest = write_manifest(folder, vocabulary, config, measured)
    return TrainingReport(
        out=str(out),
        model_id=manifest.model_id,
        device=device.type,
        users=len(histories),
        items=len(vocabulary),
        held_out_users=len(held_out.items),
        epochs=len(epochs),
        best_epoch=best.epoch,
        onnx_difference=difference,
        seconds=round(time.monotonic() - started, 3),
        **measured,
    )


def _device(name: Device) -> torch.device:
    """Choose the device. Raises DeviceError where the one asked for is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, is_there in there.items() if is_there))
    if not there[name]:
        raise DeviceError(f"--device {name}: torch {torch.__version__} finds none. Pass --device auto or cpu")
    return torch.device(name)


def _read_histories(path: Path) -> tuple[Vocabulary, Histories]:
    """Read a whole sequences table, 4 bytes an event, and the vocabulary of all its items."""
    sequences = open_sequences(path)
    try:
        with connect() as con:
            items = select(con, "items", path=literal(path)).to_arrow_table().combine_chunks()
    except duckdb.Error as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if len(items) == 0:
        raise InputError(f"{path}: no history holds an item. Run batchrec build-sequences on ratings that do")
    vocabulary = Vocabulary(items["item_id"].cast(sequences.item_type).chunk(0), items["n_events"].to_numpy())
    read = [Histories.from_arrow(batch["item_ids"], vocabulary) for batch in sequences.batches(_USERS_AT_A_TIME)]
    lengths = np.concatenate([histories.lengths for histories in read])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return vocabulary, Histories(np.concatenate([histories.items for histories in read]), offsets)
