"""The model registry: versions, rollback, and models that are lost or damaged."""

import shutil

import pytest

from batchrec.errors import ConfigError
from batchrec.model.directory import load_model
from batchrec.nightly.report import ModelFigures
from tests.support.models import run_cli
from tests.support.nights import Company, ids


def test_a_damaged_model_in_use_is_replaced(shop: Company) -> None:
    shop.run()
    weights = shop.folder / "models/current/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    report = shop.run(1, train_every="300d")
    assert report.trained_because is not None
    assert "weights.safetensors is not the file that was written" in report.trained_because
    assert shop.manifest().model_id == ids()[1]


def test_the_model_can_be_rolled_back(shop: Company) -> None:
    shop.run()
    shop.run(7)
    first, second = shop.registry.versions()
    assert shop.registry.current == second
    assert shop.registry.before_current() == first
    shop.registry.use(first)
    assert shop.registry.current == first
    with pytest.raises(ConfigError, match="no model exists before"):
        shop.registry.before_current()
    with pytest.raises(ConfigError, match=f"no model 'x'; found {first.name}, {second.name}"):
        shop.registry.find("x")
    assert shop.registry.prune(1) == []


@pytest.mark.parametrize("damage", [b"{}", b'{"contract_version": 2}'])
def test_a_model_in_use_that_cannot_be_loaded_is_a_reason_to_train(
    shop: Company, damage: bytes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.run()
    in_use = shop.registry.current
    assert in_use is not None
    (in_use.folder / "manifest.json").write_bytes(damage)
    monkeypatch.chdir(shop.folder)
    assert run_cli("models", "list") == 0
    assert capsys.readouterr().out.startswith(f"* {in_use.name}  models/{in_use.name}")
    report = shop.run(1)
    assert report.trained_because is not None
    assert report.trained_because.startswith("the model in use cannot be used: ")
    assert shop.trainings[1].init_from is None
    assert report.model != in_use.name


def test_a_damaged_model_can_be_rolled_back(shop: Company) -> None:
    shop.run()
    shop.run(7)
    first, second = shop.registry.versions()
    (second.folder / "manifest.json").write_text("{}", encoding="utf-8")
    assert shop.registry.before_current() == first


def test_training_does_not_start_from_a_model_that_knows_none_of_the_items(shop: Company) -> None:
    report = shop.run()
    assert report.models
    model_id = str(report.models[0]["model_id"])
    shop.figures[model_id] = ModelFigures(model_id, 0.2, 0.1, unknown_share=1.0)
    shop.run(1)
    assert [training.init_from for training in shop.trainings] == [None, None]


def test_a_damaged_model_of_the_same_night_is_replaced(shop: Company) -> None:
    shop.run()
    in_use = shop.registry.current
    assert in_use is not None
    (in_use.folder / "weights.safetensors").write_bytes(b"x")
    shop.trainings.clear()
    report = shop.run()
    assert report.model == in_use.name
    assert load_model(in_use.folder).manifest == in_use.manifest


def test_rollback_works_if_the_model_is_deleted_or_current_is_not_a_link(
    shop: Company, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shop.folder)
    shop.run()
    shop.run(7)
    first, second = shop.registry.versions()
    shutil.rmtree(second.folder)
    assert run_cli("models", "rollback") == 0
    assert shop.registry.current == first
    (shop.folder / "models/current").unlink()
    shutil.copytree(first.folder, shop.folder / "models/current")
    capsys.readouterr()
    assert run_cli("models", "rollback", first.name) == 4
    assert run_cli("models", "list") == 0
    said = capsys.readouterr()
    assert first.name in said.out
    assert "Move it away" in said.out
    assert "Move it away" in said.err
    shutil.rmtree(shop.folder / "models/current")
    assert run_cli("models", "rollback", first.name) == 0
