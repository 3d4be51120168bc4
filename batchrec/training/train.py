"""The train job: fit the encoder, keep its best epoch, export it and write the model directory."""

import gc
import logging
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from batchrec.arrays import Bools
from batchrec.config import TrainingConfig
from batchrec.config.arguments import checked
from batchrec.model.batching import Histories
from batchrec.model.blend import Blend
from batchrec.model.directory import TRAINING_LOG, load_model, replacing_model, write_manifest
from batchrec.model.vocabulary import Vocabulary
from batchrec.system.checkpoints import CheckpointStore, fingerprint_of
from batchrec.system.disk import file_sha256
from batchrec.system.json_text import to_json
from batchrec.tables.log_end import ahead_from, iso_time
from batchrec.tables.queries import connect
from batchrec.tables.validation_cut import validation_cut
from batchrec.training.blend import blend_accuracy, fit_blend, make_blend
from batchrec.training.blend_fit import FittedWeights
from batchrec.training.corpus import Corpus, read_corpus
from batchrec.training.default_sizes import batch_size, encoder_shape, has_sparse_steps, n_negatives
from batchrec.training.devices import chosen_device, full_memory_reported, limited_threads
from batchrec.training.distributed import ProcessGroup, join_process_group
from batchrec.training.encoder import Encoder
from batchrec.training.export import check_parity, write_encoder
from batchrec.training.holdout import Accuracy, Split, encoder_accuracy, hold_out
from batchrec.training.holdout_by_time import hold_out_after
from batchrec.training.loop import FitResult, OnEpoch, fit
from batchrec.training.refit import refit
from batchrec.training.signals import Signals, read_signals
from batchrec.training.warm_start import read_warm_start

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingReport:
    """The training data and the result; the accuracies are those of the best epoch, blended.

    validation: temporal or last-item; cut: the time from which items are held out, None if only last items are.
    encoder: its shape. negatives: negatives sampled per step, 0 for the full softmax. ended_by: patience, max_epochs,
    max_minutes or on_epoch. blend: the weight of each signal, 0 for one that does not help; none without a blend.
    blend_ndcg_gains: how much each signal adds to NDCG@10 on the users of the fit. blend_shares: the share of their top
    10 that each part carries. onnx_difference: the largest difference of a score between the ONNX graph and torch.
    """

    out: str
    model_id: str
    device: str
    processes: int
    users: int
    items: int
    validation: str
    cut: str | None
    held_out_users: int
    encoder: dict[str, Any]
    batch_size: int
    negatives: int
    epochs: int
    best_epoch: int
    ended_by: str
    ndcg_at_10: float
    hr_at_10: float
    popularity_ndcg_at_10: float
    popularity_hr_at_10: float
    blend: dict[str, float]
    blend_ndcg_gains: dict[str, float]
    blend_shares: dict[str, float]
    onnx_difference: float
    seconds: float


@checked
def train(
    sequences: Path | str = Path("sequences.parquet"),
    config: TrainingConfig = TrainingConfig(),
    out: Path | str = Path("model"),
    checkpoint_dir: Path | None = None,
    on_epoch: OnEpoch | None = None,
) -> TrainingReport:
    """Train on a sequences table and write the model directory `out`, replacing an older one only when all is done.

    checkpoint_dir: a folder, created if missing, for a checkpoint of every epoch. After a run was killed, the same call
    resumes from there. The caller removes it. on_epoch: called with the figures of each epoch, such as print; if it
    returns True, training ends and the best epoch is kept. An error that it raises leaves `out` as it was.
    Raises InputError if the table breaks its contract or has nothing to learn from, DeviceError if the device is
    missing, ConfigError if `out` cannot be written, the loss diverges or memory is full. Then `out` stays as it was.
    """
    sequences, out = Path(sequences), Path(out)
    device = chosen_device(config.device)
    with (
        limited_threads(config.threads),
        full_memory_reported(device),
        join_process_group(device) as group,
        replacing_model(out) if group.is_first else nullcontext() as folder,
    ):
        started = time.monotonic()
        trained = _train(sequences, config, checkpoint_dir, device, group, on_epoch)
        report = None
        if folder is not None:
            corpus, cut, fitted = trained.corpus, trained.cut, trained.fitted
            fitted_blend, blend, accuracy = _blend(trained, config)
            difference = _write(folder, trained, blend)
            metrics = accuracy.named() | fitted.popularity.named("popularity_")
            blend_sizes = None if blend is None else blend.sizes
            used = replace(config, validate="last-item" if cut is None else "temporal")
            manifest = write_manifest(folder, corpus.vocabulary, trained.final.shape, used, metrics, blend_sizes)
            report = TrainingReport(
                out=str(out),
                model_id=manifest.model_id,
                device=device.type,
                processes=group.size,
                users=len(corpus.histories),
                items=len(corpus.vocabulary),
                validation=used.validate,
                cut=None if cut is None else iso_time(cut),
                held_out_users=len(trained.split.held_out.later),
                encoder=asdict(trained.final.shape),
                **trained.sizes,
                epochs=len(fitted.epochs),
                best_epoch=fitted.best_epoch,
                ended_by=fitted.ended_by,
                blend=fitted_blend.weights,
                blend_ndcg_gains=fitted_blend.gains,
                blend_shares=fitted_blend.shares,
                onnx_difference=difference,
                seconds=round(time.monotonic() - started, 3),
                **metrics,
            )
        return group.broadcast(report)


@dataclass(frozen=True)
class _Trained:
    """A training without its blend. chosen: the encoder of the best epoch. final: the same one, or that of the refit.

    sizes: those of a training step.
    """

    corpus: Corpus
    cut: int | None
    split: Split
    sizes: dict[str, int]
    fitted: FitResult
    chosen: Encoder
    final: Encoder


def _train(  # noqa: PLR0913, PLR0917 - the arguments of train, the device and the group
    sequences: Path,
    config: TrainingConfig,
    checkpoint_dir: Path | None,
    device: torch.device,
    group: ProcessGroup,
    on_epoch: OnEpoch | None,
) -> _Trained:
    """Choose an encoder by what is held out, and refit it. The encoders are on the CPU, in evaluation mode."""
    for option in config.unused if group.is_first else ():
        _log.warning("--objective %s does not use %s", config.objective, option)
    # The clocks of the processes differ, but all must hold out the same events.
    corpus = read_corpus(sequences, config.seed, group.broadcast(ahead_from()), config.half_life)
    cut, split = _split(sequences, corpus, config)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # Dropout draws only from torch's global generator: seed it here, and restore it afterwards.
        torch.manual_seed(config.seed)
        encoder = _new_encoder(corpus.vocabulary, split, config)
        sizes = _step_sizes(config, split.training, encoder)
        workers = f"{group.size} process(es) of {torch.get_num_threads()} thread(s)"
        if config.max_epochs:
            of_step = ", ".join(f"{name} {value}".replace("_", " ") for name, value in sizes.items())
            _log.info("training on %s, %s: %s, %s", device, workers, encoder.shape, of_step)
        checkpoints = _open_checkpoints(checkpoint_dir, sequences, cut, config, device, group)
        fitted = fit(encoder.to(device), split, config, group, checkpoints, on_epoch)
        if has_sparse_steps(config, encoder.item_biases.numel(), group.size):
            # torch loads modules within the first trainer, and keeps it, with its copies of the weights, in a circle.
            gc.collect()
        is_final = split.refit is None or not fitted.epochs
        final = encoder if is_final else refit(encoder, fitted, split, config, group)
    return _Trained(corpus, cut, split, sizes, fitted, encoder.cpu().eval(), final.cpu().eval())


def _step_sizes(config: TrainingConfig, training: Histories, encoder: Encoder) -> dict[str, int]:
    """Return the sizes of a training step for the report: windows, and negatives, 0 for the full softmax."""
    return {
        "batch_size": batch_size(config, training, encoder.shape.max_len),
        "negatives": n_negatives(config, encoder.item_biases.numel()),
    }


def _split(sequences: Path, corpus: Corpus, config: TrainingConfig) -> tuple[int | None, Split]:
    """Find the time from which items are held out, None if only last items are, and hold them out."""
    with connect() as con:
        cut = validation_cut(con, sequences, corpus.until, config)
    if cut is not None:
        _log.info("holding out what users take from %s on", iso_time(cut))
        return cut, hold_out_after(corpus, cut, config)
    return None, hold_out(corpus.histories, config.validation_users, corpus.holdout_users, config.repeat_items)


def _blend(trained: _Trained, config: TrainingConfig) -> tuple[FittedWeights, Blend | None, Accuracy]:
    """Fit a blend of the chosen encoder on what users took later, and blend the final encoder with the final signals.

    Returns the weights, none without a blend, the final blend, and the accuracy of the chosen one.
    """
    corpus, split = trained.corpus, trained.split
    if config.blend == "none":
        return FittedWeights({}, {}), None, encoder_accuracy(trained.chosen, split.held_out)

    def signals_of(histories: Histories, kept: Bools) -> Signals:
        return read_signals(histories, corpus.times[kept], corpus.until, corpus.vocabulary.size)

    signals = signals_of(split.training, split.kept)
    has_encoder = config.max_epochs > 0
    fitted = fit_blend(trained.chosen, signals, split.qualified, config.seed, has_encoder)
    _log.info("the weights of the blend, and what NDCG@10 gains by each signal: %s", fitted)
    accuracy = blend_accuracy(trained.chosen, make_blend(fitted.weights, trained.chosen, signals), split.held_out)
    _log.info("blend: held out: NDCG@10 %.4f, HR@10 %.4f", accuracy.ndcg, accuracy.hit_rate)
    if split.refit is not None:
        # Neighbours take 400 bytes per item: millions of items leave room for one of the two.
        del signals
        signals = signals_of(split.refit.histories, split.refit.kept)
    blend = make_blend(fitted.weights, trained.final, signals)
    if has_encoder and not blend.has_encoder:
        _log.info("the encoder is left out: simple signals rank as well without it, and --max-epochs 0 takes seconds")
    return fitted, blend, accuracy


def _write(folder: Path, trained: _Trained, blend: Blend | None) -> float:
    """Write the encoder and its epochs; return the largest difference of a score between the graph and torch."""
    encoder, split = trained.final, trained.split
    write_encoder(encoder, folder, blend)
    lines = [to_json(asdict(epoch)) + "\n" for epoch in trained.fitted.epochs]
    (folder / TRAINING_LOG).write_text("".join(lines), encoding="utf-8")
    return check_parity(encoder, folder, split.held_out.histories, blend)


def _open_checkpoints(  # noqa: PLR0913, PLR0917 - each is something that the checkpoints depend on
    folder: Path | None,
    sequences: Path,
    cut: int | None,
    config: TrainingConfig,
    device: torch.device,
    group: ProcessGroup,
) -> CheckpointStore | None:
    """Open the checkpoints of exactly this training; only the first process has them."""
    if folder is None or not group.is_first:
        return None
    depends_on = {
        "sequences": file_sha256(sequences),
        "cut": cut,
        "config": asdict(config),
        "init_from": load_model(Path(config.init_from)).manifest.seal if config.init_from else None,
        "device": device.type,
        "processes": group.size,
    }
    return CheckpointStore(folder, fingerprint_of(depends_on, torch))


def _new_encoder(vocabulary: Vocabulary, split: Split, config: TrainingConfig) -> Encoder:
    """Create an encoder that starts from popularity, or from the model of --init-from.

    Popularity here answers: what is a good bias for an item that nothing else is known of? The log of its number of
    events in the training part: an untrained encoder ranks by popularity.
    """
    if config.init_from:
        start = read_warm_start(Path(config.init_from), config)
        encoder = Encoder(vocabulary.size, start.shape)
        n_new = start.load_into(encoder, vocabulary, split.training)
        _log.info("starting from %s: %d of %d items are new to it", config.init_from, n_new, len(vocabulary))
        return encoder
    encoder = Encoder(vocabulary.size, encoder_shape(config, split.final.histories))
    training = split.training
    n_events = np.bincount(training.items, training.relative_weights, minlength=vocabulary.size) + 0.5
    encoder.item_biases.data = torch.from_numpy(np.log(n_events / n_events.mean())).float()
    return encoder
