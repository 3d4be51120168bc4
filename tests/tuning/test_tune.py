"""The search for options of train. Most trainings are scripted: NDCG@10 after each epoch, by the options."""

import json
import re
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchrec.config import SPACE, TrainingConfig, TuneConfig
from batchrec.errors import ConfigError
from batchrec.training.loop import Epoch, OnEpoch
from batchrec.training.train import train
from batchrec.tuning import tune as job
from batchrec.tuning.tune import Trial, tune
from tests.support.models import names_in, run_cli, training_sequences
from tests.support.pages import text_of

TINY = TrainingConfig(max_epochs=2, min_epoch_steps=1, n_layers=1, hidden_size=8, max_len=8, device="cpu")
RATE = TuneConfig(search=("learning-rate",), max_trials=9)
RATES = set(SPACE["learning_rate"])
FILE = """\
# Ours.
[train]
# One layer is enough.
n_layers = 1

[score]
top-k = 5  # five
"""
Scripted = Callable[[Callable[[TrainingConfig, int], float]], None]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """Return a function that replaces train by a training whose NDCG@10 depends on the options and the epoch."""

    def script(figure: Callable[[TrainingConfig, int], float]) -> None:
        def scripted_train(_: object, config: TrainingConfig, __: object, on_epoch: OnEpoch) -> None:
            for epoch in range(1, 300):
                on_epoch(Epoch(epoch, 1.0, figure(config, epoch), 0.0, 0.0, 0.0, 0.0))

        monkeypatch.setattr(job, "train", scripted_train)

    return script


def by_option(trials: list[Trial], name: str) -> dict[Any, Trial]:
    return {trial.options[name]: trial for trial in trials}


def test_a_trial_is_judged_by_the_figure_that_chooses_the_epoch_of_train(tmp_path: Path, no_export: None) -> None:
    report = tune(training_sequences(), TuneConfig(search=("learning-rate",), max_trials=2), TINY)
    epochs: list[float] = []
    trained = train(training_sequences(), TINY, tmp_path / "model", on_epoch=lambda e: epochs.append(e.ndcg_at_10))
    first, second = report.trials
    assert first.options == {"learning-rate": TINY.learning_rate}
    assert (first.ndcg_at_10, first.best_epoch, first.epochs) == (max(epochs), trained.best_epoch, trained.epochs)
    assert second.options["learning-rate"] in RATES - {TINY.learning_rate}
    assert not [name for name in names_in(Path(tempfile.gettempdir())) if "batchrec" in name]


def test_every_value_is_tried_once_and_the_best_one_is_found(scripted: Scripted) -> None:
    scripted(lambda config, _: 0.5 if config.learning_rate == 0.002 else 0.1)
    report = tune("sequences", RATE, TINY)
    rates = [trial.options["learning-rate"] for trial in report.trials]
    assert rates[0] == TINY.learning_rate
    assert sorted(rates) == sorted(RATES)
    assert report.options == {"learning-rate": 0.002}
    assert report.trials[report.best].ndcg_at_10 == 0.5


def test_the_same_seed_repeats_a_search(scripted: Scripted) -> None:
    scripted(lambda config, _: (config.dropout or 0.25) * config.n_layers)
    searches = [tune("sequences", TuneConfig(max_trials=8), TINY).trials for _ in range(2)]
    assert [trial.options for trial in searches[0]] == [trial.options for trial in searches[1]]
    assert len(searches[0]) == 8


def test_options_as_they_are_win_ties(scripted: Scripted) -> None:
    scripted(lambda *_: 0.1)
    report = tune("sequences", RATE, TINY)
    assert (report.best, report.options) == (0, {})


def test_patience_and_max_epochs_end_a_trial(scripted: Scripted) -> None:
    scripted(lambda _, epoch: 0.1 * min(epoch, 3))
    for training, n_epochs, reason in (
        (TrainingConfig(patience=2), 5, "patience"),
        (TrainingConfig(max_epochs=2), 2, "max_epochs"),
    ):
        (trial,) = tune("sequences", TuneConfig(max_trials=1), training).trials
        assert (trial.epochs, trial.ended_by) == (n_epochs, reason)


def test_hopeless_trials_are_pruned_after_the_first_four(scripted: Scripted) -> None:
    scripted(lambda config, epoch: 0.01 * epoch * (config.learning_rate > 0.001))
    config = TuneConfig(search=("learning-rate", "n-layers"), max_trials=15)
    trials = tune("sequences", config, TrainingConfig(max_epochs=20)).trials
    pruned = [trial for trial in trials if trial.ended_by == "pruned"]
    assert pruned
    for trial in pruned:
        assert trial.number >= 4
        assert trial.options["learning-rate"] <= 0.001
        assert 3 <= trial.epochs < 20


def test_time_ends_a_trial_and_the_search_after_an_epoch(scripted: Scripted) -> None:
    scripted(lambda _, epoch: 0.001 * epoch)
    (trial,) = tune("sequences", TuneConfig(max_minutes=1e-9), TINY).trials
    assert (trial.epochs, trial.ended_by) == (1, "max_minutes")
    trials = tune("sequences", TuneConfig(trial_minutes=1e-9, max_trials=3), TINY).trials
    assert [(trial.epochs, trial.ended_by) for trial in trials] == [(1, "trial_minutes")] * 3


def test_a_training_that_collapses_is_a_trial_without_a_figure(scripted: Scripted) -> None:
    def collapses(config: TrainingConfig, _: int) -> float:
        if config.learning_rate == failing:
            raise ConfigError("training has collapsed")
        return 0.1

    failing = 0.004
    scripted(collapses)
    trial = by_option(tune("sequences", RATE, TINY).trials, "learning-rate")[0.004]
    assert (trial.ndcg_at_10, trial.epochs, trial.ended_by) == (None, 0, "error")
    failing = TINY.learning_rate
    with pytest.raises(ConfigError, match="collapsed"):
        tune("sequences", RATE, TINY)


def test_an_interrupted_search_returns_the_trials_so_far(scripted: Scripted) -> None:
    def interrupted(config: TrainingConfig, _: int) -> float:
        if config.learning_rate != TINY.learning_rate:
            raise KeyboardInterrupt
        return 0.1

    scripted(interrupted)
    report = tune("sequences", RATE, TINY)
    assert ([trial.ndcg_at_10 for trial in report.trials], report.options) == ([0.1], {})


def test_a_search_that_is_interrupted_in_its_first_trial_has_nothing_to_return(scripted: Scripted) -> None:
    def interrupted(_config: TrainingConfig, _epoch: int) -> float:
        raise KeyboardInterrupt

    scripted(interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune("sequences", RATE, TINY)


def test_what_cannot_be_tuned_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no encoder to tune"):
        tune("sequences", RATE, TrainingConfig(max_epochs=0))
    with pytest.raises(ConfigError, match=r"--search patience: expected one of hidden-size, "):
        TuneConfig(search=("patience",))
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'batchrec\[tune\]'"):
        tune("sequences", RATE, TINY)


def test_the_page_lists_the_values() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \|$", text_of("docs/tune.md"), flags=re.MULTILINE)
    listed = {name: [value for value in re.split(r", | days", values) if value] for name, values in rows}
    expected = {
        name.replace("_", "-"): [f"{v:g}" if isinstance(v, float) else str(v) for v in SPACE[name]] for name in SPACE
    }
    assert listed == expected


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripted: Scripted) -> Path:
    """Return the batchrec.toml of the current folder; 256 is the best hidden size, the default maximum length is."""
    monkeypatch.chdir(tmp_path)
    scripted(lambda config, _: 0.1 + 0.1 * (config.hidden_size == 256) + 0.1 * (config.max_len is None))
    file = tmp_path / "batchrec.toml"
    file.write_text(FILE, encoding="utf-8")
    return file


SEARCH = ("tune", "--search", "hidden-size", "--search", "max-len", "--trial-minutes", 1e-9)


def test_the_best_values_are_written_between_the_comments(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(*SEARCH, "--write") == 0
    assert file.read_text(encoding="utf-8") == FILE.replace("n_layers = 1\n", "n_layers = 1\nhidden-size = 256\n")
    shown = capsys.readouterr().out
    assert "[train]\nhidden-size = 256\n\nbatchrec.toml: written" in shown
    assert run_cli(*SEARCH, "--write") == 0
    assert "No trial is better" in capsys.readouterr().out


def test_without_write_nothing_is_changed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(*SEARCH) == 0
    assert "Pass --write" in capsys.readouterr().out
    assert run_cli(*SEARCH, "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["options"] == {"hidden-size": 256}
    assert file.read_text(encoding="utf-8") == FILE


def test_a_default_that_is_better_is_removed_from_the_file(file: Path) -> None:
    file.write_text(FILE.replace("n_layers = 1", "max_len = 50\nhidden-size = 256"), encoding="utf-8")
    assert run_cli(*SEARCH, "--write") == 0
    assert tomllib.loads(file.read_text(encoding="utf-8")) == {"train": {"hidden-size": 256}, "score": {"top-k": 5}}


def test_a_value_keeps_its_spelling_its_comment_and_the_ends_of_the_lines(file: Path) -> None:
    text = "[train]\r\nhidden_size = 32  # ours\r\n"
    file.write_bytes(text.encode())
    assert run_cli(*SEARCH, "--write") == 0
    assert file.read_bytes() == text.replace("32", "256").encode()


def test_what_the_environment_would_hide_is_not_written(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCHREC_TRAIN_HIDDEN_SIZE", "64")
    assert run_cli(*SEARCH, "--write") == 2
    assert "BATCHREC_TRAIN_HIDDEN_SIZE: takes precedence over batchrec.toml" in capsys.readouterr().err
    assert file.read_text(encoding="utf-8") == FILE
    assert run_cli(*SEARCH) == 0


@pytest.mark.parametrize(("seen", "is_repeating"), [("block", False), ("allow", True), ("30d", True)])
def test_trials_are_judged_by_lists_as_score_writes_them(
    seen: str, is_repeating: bool, file: Path, scripted: Scripted
) -> None:
    judged_by = set()

    def figure(config: TrainingConfig, _: int) -> float:
        judged_by.add(config.repeat_items)
        return 0.1

    scripted(figure)
    file.write_text(f'[score]\nseen = "{seen}"\n', encoding="utf-8")
    assert run_cli(*SEARCH) == 0
    assert judged_by == {is_repeating}


def test_a_missing_file_is_created(file: Path) -> None:
    file.unlink()
    assert run_cli(*SEARCH, "--write") == 0
    assert tomllib.loads(file.read_text(encoding="utf-8")) == {"train": {"hidden-size": 256}}
