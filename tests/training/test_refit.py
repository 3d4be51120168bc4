"""The refit of the model that was chosen by what users take after a time."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from batchrec.config import Objective, TrainingConfig
from batchrec.errors import ConfigError
from batchrec.model.batching import Histories
from batchrec.model.directory import load_model
from batchrec.tables.log_end import iso_time
from batchrec.tables.schemas import FIRST_ITEM, PAD
from batchrec.training import loop as fitting
from batchrec.training import refit as refitting
from batchrec.training import train as training
from batchrec.training.corpus import Corpus, read_corpus
from batchrec.training.encoder import Encoder
from batchrec.training.holdout import Accuracy, HeldOut, Split
from batchrec.training.holdout_by_time import hold_out_after
from batchrec.training.loop import Epoch, FitResult, fit
from batchrec.training.refit import refit
from batchrec.training.signals import Signals
from batchrec.training.train import train
from batchrec.training.trainer import Trainer
from batchrec.training.windows import Batch, count_batches, draw_batches
from tests.support.logs import SPREAD_CUT, spread_log, write_log
from tests.support.models import CONFIG, N_ITEMS, small_encoder

# The vocabulary of the log of these tests: one more item than the training histories have, PAD and MASK.
SIZE = N_ITEMS + 3


@pytest.fixture
def sequences(tmp_path: Path) -> Path:
    return write_log(tmp_path / "sequences.parquet", spread_log())


def lists_of(histories: Histories, corpus: Corpus) -> dict[int, list[int]]:
    """The items by user, without users who have none."""
    ids = corpus.vocabulary.item_ids.to_pylist()
    lists = [
        [ids[index - FIRST_ITEM] for index in histories.items[start:end]]
        for start, end in pairwise(histories.offsets.tolist())
    ]
    return {user: items for user, items in zip(spread_log(), lists, strict=True) if items}


def recorded(name: str, monkeypatch: pytest.MonkeyPatch, *modules: Any) -> list[tuple[Any, ...]]:
    """Return the list of the arguments of each call of a function that modules have imported."""
    calls: list[tuple[Any, ...]] = []
    for module in modules:
        original: Callable[..., Any] = getattr(module, name)

        def record(*arguments: Any, original: Callable[..., Any] = original) -> Any:
            calls.append(arguments)
            return original(*arguments)

        monkeypatch.setattr(module, name, record)
    return calls


@pytest.mark.usefixtures("no_export")
def test_the_model_is_chosen_before_the_cut_and_refitted_after_it(
    sequences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = recorded("draw_batches", monkeypatch, fitting, refitting)
    report = train(sequences, replace(CONFIG, validation_users=9), tmp_path / "model")
    assert (report.validation, report.cut, report.held_out_users) == ("temporal", iso_time(SPREAD_CUT), 9)
    assert load_model(tmp_path / "model").manifest.config["validate"] == "temporal"
    corpus = read_corpus(sequences, CONFIG.seed)
    first, second, last = (lists_of(arguments[0], corpus) for arguments in drawn)
    before = {user: [item for item, moment in events if moment < SPREAD_CUT] for user, events in spread_log().items()}
    whole = {user: [item for item, _ in events] for user, events in spread_log().items()}
    assert first == second == before
    held_out = {user for user in whole if last[user] != whole[user]}
    assert all(last[user] == before[user] for user in held_out)
    assert 9 <= len(held_out) < len(whole) / 2
    split = hold_out_after(corpus, SPREAD_CUT, replace(CONFIG, validation_users=9))
    assert lists_of(split.final.histories, corpus) == last


@pytest.mark.usefixtures("no_export")
def test_last_items_need_no_refit(sequences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refits = recorded("refit", monkeypatch, training)
    report = train(sequences, replace(CONFIG, validate="last-item"), tmp_path / "model")
    assert (report.validation, report.cut, refits) == ("last-item", None, [])


def split_of(sequences: Path) -> Split:
    return hold_out_after(read_corpus(sequences, 0), SPREAD_CUT, CONFIG)


def fitted(best: int = 1, loss: float = 3.0, n_later: int = 0) -> FitResult:
    epochs = [Epoch(number, loss, 0.5, 0.5, 0.1, 0.1, 1.0) for number in range(1, best + n_later + 1)]
    return FitResult(epochs, best, "max_epochs", Accuracy(0.1, 0.1))


@pytest.mark.parametrize(("best", "n_epochs"), [(1, 1), (4, 1), (9, 1), (10, 2), (26, 5)])
def test_the_refit_has_a_fifth_of_the_epochs(
    best: int, n_epochs: int, sequences: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = recorded("draw_batches", monkeypatch, refitting)
    refit(small_encoder(SIZE), fitted(best), split_of(sequences), CONFIG)
    assert len(drawn) == n_epochs


@pytest.mark.parametrize(("best", "n_later", "share"), [(1, 0, 1), (1, 1, 0.2), (3, 5, 0.6), (5, 5, 1), (9, 5, 1)])
def test_a_model_that_soon_got_worse_is_refitted_for_less_than_an_epoch(
    best: int, n_later: int, share: float, sequences: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = recorded("_step", monkeypatch, Trainer)
    split, config = split_of(sequences), replace(CONFIG, batch_size=2)
    encoder = small_encoder(SIZE)
    refit(encoder, fitted(best, n_later=n_later), split, config)
    assert len(steps) == round(share * count_batches(split.final.histories, encoder.shape, config))


def test_the_refit_is_adamw_whose_rate_falls_to_0(objective: Objective, sequences: Path) -> None:
    config = TrainingConfig(
        objective=objective,
        batch_size=4,
        learning_rate=0.01,
        weight_decay=0.1,
        warmup_steps=3,
        max_epochs=7,
        min_epoch_steps=30,
        precision="fp32",
        seed=1,
    )
    split = split_of(sequences)
    chosen, plain = (small_encoder(SIZE, objective=objective, dropout=0.0) for _ in range(2))
    known_items(plain, split)
    encoder = refit(chosen, fitted(), split, config)

    average = {name: weight.clone() for name, weight in plain.state_dict().items()}
    decayed = [weight for weight in plain.parameters() if weight.dim() > 1]
    free = [weight for weight in plain.parameters() if weight.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": free, "weight_decay": 0.0}])
    generator = np.random.default_rng([1, 8])
    batches = list(draw_batches(split.final.histories, SIZE, plain.shape, config, generator))
    assert len(batches) == count_batches(split.final.histories, plain.shape, config) >= 30
    for step, batch in enumerate(batches, start=1):
        optimizer.zero_grad()
        plain_loss(plain, batch).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 5.0)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * min(1.0, step / 4) * (1 - (step - 1) / len(batches))
        optimizer.step()
        for name, weight in plain.state_dict().items():
            average[name] = average[name] * step / (step + 9) + weight * 9 / (step + 9)
    for name, weight in encoder.state_dict().items():
        # A bias of the keys does not change attention: its gradient is rounding noise, which AdamW scales up to steps.
        start = len(weight) // 2 if name.endswith("key_value.bias") else 0
        assert torch.allclose(weight[start:], average[name][start:], rtol=1e-3, atol=1e-4), name


def plain_loss(encoder: Encoder, batch: Batch) -> torch.Tensor:
    labels = torch.from_numpy(batch.labels).long()
    scores = encoder(torch.from_numpy(batch.tokens)) @ encoder.item_embeddings.weight.T + encoder.item_biases
    return F.cross_entropy(scores[labels != PAD], labels[labels != PAD])


def known_items(encoder: Encoder, split: Split) -> list[int]:
    """Set the items that nobody has before the cut to the mean of those next to them, and return them."""
    histories = split.final.histories
    known = sorted({*split.training.items.tolist()})
    new = [item for item in range(FIRST_ITEM, SIZE) if item not in known]
    neighbours: dict[int, list[int]] = {item: [] for item in new}
    for start, end in pairwise(histories.offsets.tolist()):
        for one, other in pairwise(histories.items[start:end].tolist()):
            for item, neighbour in ((one, other), (other, one)):
                if item in neighbours and neighbour in known:
                    neighbours[item].append(neighbour)
    with torch.no_grad():
        for item in new:
            encoder.item_embeddings.weight[item] = encoder.item_embeddings.weight[neighbours[item]].mean(dim=0)
            biases = encoder.item_biases[known].numpy()
            encoder.item_biases[item] = float(np.interp(item, known, biases))
    return new


def test_items_that_nobody_had_before_the_cut_start_near_their_neighbours(sequences: Path) -> None:
    split = split_of(sequences)
    chosen, plain = small_encoder(SIZE), small_encoder(SIZE)
    assert len(known_items(plain, split)) == 1
    before = {name: weight.clone() for name, weight in chosen.state_dict().items()}
    encoder = refit(chosen, fitted(), split, replace(CONFIG, learning_rate=1e-30))
    for name, weight in plain.state_dict().items():
        assert torch.allclose(encoder.state_dict()[name], weight, atol=1e-6), name
        assert torch.equal(chosen.state_dict()[name], before[name]), name


def test_a_refit_whose_loss_is_nan_ends_the_job(sequences: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def take_steps(_: object, batches: Iterator[Batch], __: object) -> float:
        assert any(batch.n_labels for batch in batches)
        return float("nan")

    monkeypatch.setattr("batchrec.training.trainer.Trainer.take_steps", take_steps)
    with pytest.raises(ConfigError, match="training has collapsed: the loss of the refit is nan"):
        refit(small_encoder(SIZE), fitted(), split_of(sequences), CONFIG)


def test_the_blend_is_fitted_before_the_cut_and_made_of_all_that_is_not_held_out(
    sequences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = read_corpus(sequences, 0)
    split = hold_out_after(corpus, SPREAD_CUT, CONFIG)
    chosen, final = (small_encoder(SIZE, seed=seed) for seed in (1, 2))
    counted = recorded("read_signals", monkeypatch, training)
    given: list[tuple[Encoder, Signals, HeldOut]] = recorded("fit_blend", monkeypatch, training)
    made = recorded("make_blend", monkeypatch, training)
    config = replace(CONFIG, blend="auto")
    trained = training._Trained(corpus, SPREAD_CUT, split, {}, fitted(), chosen, final)
    weighted, blend, _ = training._blend(trained, config)
    assert blend is not None
    assert [arguments[0].items.tolist() for arguments in counted] == [
        split.training.items.tolist(),
        split.final.histories.items.tolist(),
    ]
    assert [arguments[1].tolist() for arguments in counted] == [
        corpus.times[split.kept].tolist(),
        corpus.times[split.final.kept].tolist(),
    ]
    assert given[0][0] is chosen
    assert given[0][2] is split.qualified
    assert made[-1][:2] == (weighted.weights, final)
    counts = np.bincount(split.final.histories.items, minlength=SIZE)
    assert made[-1][2].popularity["popular"] == pytest.approx(np.log1p(counts))


@pytest.mark.slow
@pytest.mark.usefixtures("every_export")
def test_a_model_with_a_blend_and_a_refit_ranks_in_the_graph_as_in_torch(sequences: Path, tmp_path: Path) -> None:
    report = train(sequences, replace(CONFIG, blend="auto"), tmp_path / "model")
    assert report.onnx_difference < 1e-4
    assert load_model(tmp_path / "model").blend is not None


def test_the_chosen_model_is_that_of_a_training_without_a_refit(sequences: Path) -> None:
    split = split_of(sequences)
    encoders = [small_encoder(SIZE) for _ in range(2)]
    results = [
        fit(encoder, given, CONFIG)
        for encoder, given in zip(encoders, (split, replace(split, refit=None)), strict=True)
    ]
    assert [epoch.ndcg_at_10 for epoch in results[0].epochs] == [epoch.ndcg_at_10 for epoch in results[1].epochs]
    for name, weight in encoders[0].state_dict().items():
        assert torch.equal(weight, encoders[1].state_dict()[name]), name
