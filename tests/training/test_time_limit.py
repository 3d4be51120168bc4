"""--max-minutes with a fake clock: time passes only with steps and with batches of held-out users."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from batchrec.system.checkpoints import CheckpointStore
from batchrec.training import holdout
from batchrec.training import loop as fitting
from batchrec.training import refit as refitting
from batchrec.training.distributed import ProcessGroup
from batchrec.training.encoder import Encoder
from batchrec.training.holdout import Accuracy, Split, TrainingPart, hold_out
from batchrec.training.loop import FitResult, fit
from batchrec.training.refit import refit
from batchrec.training.time_limit import TimeLimit
from batchrec.training.trainer import Trainer
from batchrec.training.windows import draw_batches
from tests.support.models import CONFIG, N_ITEMS, indexed, longs, small_encoder

# An epoch has ten steps, and a measurement three batches of held-out users.
LIMITED = replace(CONFIG, batch_size=4, min_epoch_steps=10, max_epochs=9, patience=9)
STEP_S, BATCH_S = 6.0, 10.0
EPOCH_S = 10 * STEP_S + 3 * BATCH_S


@dataclass
class Clock:
    now: float = 0.0
    passed: list[float] = field(default_factory=list)

    def after(self, seconds: float, work: Callable[..., Any]) -> Callable[..., Any]:
        def worked(*given: Any) -> Any:
            result = work(*given)
            self.now += seconds
            self.passed.append(seconds)
            return result

        return worked


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(Trainer, "_step", clock.after(STEP_S, Trainer._step))
    monkeypatch.setattr(Encoder, "score_last_place", clock.after(BATCH_S, Encoder.score_last_place))
    monkeypatch.setattr(fitting, "TimeLimit", partial(TimeLimit, clock=lambda: clock.now))
    monkeypatch.setattr(holdout, "_USERS_AT_A_TIME", 2)
    return clock


def split() -> Split:
    histories = indexed(*([2 + (user + place) % N_ITEMS for place in range(5)] for user in range(20)))
    return hold_out(histories, 5, longs(range(20)))


def fit_for(seconds: float, **options: Any) -> tuple[Encoder, FitResult]:
    encoder = small_encoder(N_ITEMS + 2)
    return encoder, fit(encoder, split(), replace(LIMITED, max_minutes=seconds / 60, **options))


def assert_same(one: Encoder, other: Encoder) -> None:
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name


@pytest.mark.parametrize(
    ("into_the_third", "steps", "batches"),
    [(0, 20, 6), (1, 21, 6), (25, 25, 6), (60, 30, 6), (61, 30, 7), (79, 30, 8)],
)
def test_an_epoch_beyond_the_time_limit_is_discarded(
    into_the_third: float, steps: int, batches: int, clock: Clock
) -> None:
    limited, fitted = fit_for(2 * EPOCH_S + into_the_third)
    assert (len(fitted.epochs), fitted.ended_by) == (2, "max_minutes")
    assert (clock.passed.count(STEP_S), clock.passed.count(BATCH_S)) == (steps, batches)
    assert clock.now < 2 * EPOCH_S + into_the_third + max(STEP_S, BATCH_S)
    whole, _ = fit_for(1e9, max_epochs=2)
    assert_same(limited, whole)


def test_an_epoch_that_is_finished_in_time_counts(clock: Clock) -> None:
    _, fitted = fit_for(3 * EPOCH_S)
    assert ([epoch.seconds for epoch in fitted.epochs], fitted.ended_by) == ([EPOCH_S] * 3, "max_minutes")
    assert clock.now == 3 * EPOCH_S


@pytest.mark.parametrize("n_epochs", [1, 3, 8])
def test_a_training_that_the_time_limit_ends_says_whether_it_still_gains(
    n_epochs: int, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    _, fitted = fit_for(n_epochs * EPOCH_S)
    ndcgs = [epoch.ndcg_at_10 for epoch in fitted.epochs]
    assert len(ndcgs) == n_epochs
    best = max(ndcgs)
    advice = "It still rises: raise" if ndcgs.index(best) == n_epochs - 1 else "It may rise again with more"
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        f"--max-minutes {n_epochs * EPOCH_S / 60:g} ended the training after epoch {n_epochs}, before --patience 9 "
        f"did: NDCG@10 was best after epoch {1 + ndcgs.index(best)}, {best:.4f}, and is {ndcgs[-1]:.4f} now. {advice} "
        "--max-minutes"
    ]


def test_a_training_that_ends_before_its_time_limit_has_no_warning(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for options, ended_by in (({"max_epochs": 2}, "max_epochs"), ({"patience": 1}, "patience")):
        assert fit_for(1e9, **options)[1].ended_by == ended_by
    assert caplog.text == ""


def test_the_first_epoch_is_measured_as_far_as_it_got(clock: Clock) -> None:
    limited, fitted = fit_for(4 * STEP_S)
    assert (len(fitted.epochs), fitted.ended_by) == (1, "max_minutes")
    assert fitted.epochs[0].seconds == 4 * STEP_S + 3 * BATCH_S == clock.now
    plain = small_encoder(N_ITEMS + 2)
    trainer = Trainer(plain, LIMITED)
    fitting.epoch_generator(LIMITED.seed, 1, 0)
    batches = draw_batches(split().training, N_ITEMS + 2, plain.shape, LIMITED, np.random.default_rng([0, 1]))
    assert trainer.take_steps(islice(batches, 4)) == fitted.epochs[0].loss
    assert_same(limited, trainer.averaged)


def test_a_run_killed_after_the_time_limit_takes_no_further_step(clock: Clock, tmp_path: Path) -> None:
    config = replace(LIMITED, max_minutes=4 * STEP_S / 60)
    checkpoints = CheckpointStore(tmp_path / "progress", b"\1" * 32)
    first, again = (small_encoder(N_ITEMS + 2) for _ in range(2))
    fitted = fit(first, split(), config, checkpoints=checkpoints)
    clock.passed.clear()
    assert fit(again, split(), config, checkpoints=checkpoints) == fitted
    assert clock.passed == []
    assert_same(first, again)


def test_a_refit_has_a_fifth_of_the_time(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refitting, "TimeLimit", partial(TimeLimit, clock=lambda: clock.now))
    whole = split()
    with_refit = replace(whole, refit=TrainingPart(whole.training, whole.kept))
    config = replace(LIMITED, max_minutes=4 * EPOCH_S / 60)
    encoder = small_encoder(N_ITEMS + 2)
    fitted = fit(encoder, with_refit, config)
    # The fourth epoch begins within 80 % of the time and is discarded.
    assert (len(fitted.epochs), fitted.ended_by, clock.now) == (3, "max_minutes", 3.2 * EPOCH_S)
    clock.passed.clear()
    refit(encoder, fitted, with_refit, replace(config, min_epoch_steps=100))
    assert clock.passed == [STEP_S] * 12
    assert clock.now == 4 * EPOCH_S


def test_a_refit_has_all_the_time_that_is_left() -> None:
    epochs = [fitting.Epoch(number, 1.0, 0.5, 0.5, 0.1, 0.1, 6.0) for number in (1, 2)]
    for ended_by, seconds in {"patience": 48.0, "max_minutes": 12.0}.items():
        fitted = FitResult(epochs, 1, ended_by, Accuracy(0.1, 0.1))
        assert fitted.seconds_left(replace(LIMITED, max_minutes=1.0)) == seconds


@dataclass(frozen=True)
class SecondProcess(ProcessGroup):
    """The second of two processes, which receives the values of the first."""

    said: list[Any] = field(default_factory=list)

    def broadcast(self, value: Any) -> Any:
        if self.is_first:
            self.said.append(value)
            return value
        assert value is None
        return self.said.pop(0)


def steps_until_the_end(limit: TimeLimit, clock: Clock, seconds_a_step: Callable[[int], float]) -> int:
    for n_steps in range(1, 100_000):
        clock.now += seconds_a_step(n_steps)
        if limit.ends_after(n_steps):
            return n_steps
    raise AssertionError


def test_all_processes_stop_by_the_clock_of_the_first() -> None:
    said: list[Any] = []
    clock, other = Clock(), Clock()
    first = TimeLimit(10, SecondProcess(0, 2, said), lambda: clock.now)
    n_steps = steps_until_the_end(first, clock, lambda _: 0.01)
    assert 1000 <= n_steps <= 1002
    assert len(said) < 40
    second = TimeLimit(10, SecondProcess(1, 2, said), lambda: other.now)
    assert steps_until_the_end(second, other, lambda n: 5.0 / n) == n_steps
    assert said == []


def test_slow_steps_are_checked_one_by_one() -> None:
    clock = Clock()
    limit = TimeLimit(10, SecondProcess(0, 2), lambda: clock.now)
    assert steps_until_the_end(limit, clock, lambda _: 1.5) == 7
