import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from batchrec.errors import ConfigError, ModelError
from batchrec.model.directory import load_model, replacing_model, write_manifest
from batchrec.model.vocabulary import Vocabulary
from batchrec.tables.schemas import MODEL_VERSION
from tests.support.models import (
    CONFIG,
    SHAPE,
    names_in,
    run_cli,
    small_encoder,
    trained_model,
    training_sequences,
    write_graph,
)
from tests.support.shared import scratch

FILES = ["encoder.onnx", "items.parquet", "manifest.json", "training.jsonl", "weights.safetensors"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(trained_model(), tmp_path / "model"))


def edit_manifest(model: Path, **changes: Any) -> None:
    """Change the manifest and seal it again."""
    manifest = json.loads((model / "manifest.json").read_text(encoding="utf-8")) | changes | {"seal": ""}
    manifest["seal"] = hashlib.sha256((json.dumps(manifest, indent=2) + "\n").encode()).hexdigest()
    (model / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def assert_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Assert that loading and scoring fail with one line and no output; return that line."""
    with pytest.raises(ModelError):
        load_model(model)
    out = model.parent / "recs.parquet"
    assert run_cli("score", "--sequences", training_sequences(), "--model", model, "--out", out) == 4
    assert not out.exists()
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert model.name in said.err
    return said.err


def write_model(folder: Path, vocabulary: Vocabulary) -> None:
    encoder = small_encoder(vocabulary.size, max_len=8, n_layers=1)
    (folder / "weights.safetensors").write_bytes(save(encoder.state_dict()))
    write_graph(encoder, folder)
    write_manifest(folder, vocabulary, SHAPE, CONFIG, {"ndcg_at_10": 0.5})


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=5), unique=True, min_size=1, max_size=6))
def test_a_model_is_read_as_it_was_written(items: list[str]) -> None:
    vocabulary = Vocabulary(pa.array(items, pa.string()), np.arange(len(items), 0, -1, dtype=np.int64))
    with replacing_model(scratch() / "round-trip") as folder:
        write_model(folder, vocabulary)
    loaded = load_model(scratch() / "round-trip")
    assert loaded.vocabulary.item_ids.to_pylist() == items
    assert loaded.vocabulary.item_ids.type == pa.string()
    assert loaded.vocabulary.n_events.tolist() == vocabulary.n_events.tolist()
    for name, contents in (("encoder.onnx", loaded.encoder), ("weights.safetensors", loaded.weights)):
        assert contents == (scratch() / "round-trip" / name).read_bytes()
    assert loaded.manifest.shape == SHAPE
    assert loaded.manifest.metrics == {"ndcg_at_10": 0.5}
    assert loaded.manifest.contract_version == MODEL_VERSION
    assert loaded.manifest.n_items == len(items)


def test_a_model_holds_what_the_contract_lists() -> None:
    assert sorted(names_in(trained_model())) == FILES
    manifest = json.loads((trained_model() / "manifest.json").read_text(encoding="utf-8"))
    assert sorted(manifest["files"]) == [name for name in FILES if name != "manifest.json"]
    assert manifest["config"]["max_len"] == manifest["encoder"]["max_len"] == CONFIG.max_len
    assert load_model(trained_model()).vocabulary.item_ids.type == pa.int64()


def test_the_model_id_is_named_by_weights_and_items(tmp_path: Path) -> None:
    ids = []
    for number, items in enumerate((["a", "b"], ["a", "b"], ["a", "c"])):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_model(folder, Vocabulary(pa.array(items), np.array([2, 1])))
        ids.append(load_model(folder).manifest.model_id)
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.0, 0.25, 0.5, 0.75, 0.999])
def test_one_changed_byte_is_found(name: str, where: float, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contents = bytearray((model / name).read_bytes())
    contents[int(where * len(contents))] ^= 1
    (model / name).write_bytes(contents)
    assert_refused(model, capsys)


def test_a_resealed_manifest_is_read(model: Path) -> None:
    edit_manifest(model, metrics={"ndcg_at_10": 0.25})
    assert load_model(model).manifest.metrics == {"ndcg_at_10": 0.25}


def test_no_changed_byte_of_the_manifest_goes_unnoticed(model: Path) -> None:
    contents = (model / "manifest.json").read_bytes()
    unnoticed = []
    for place in range(len(contents)):
        (model / "manifest.json").write_bytes(
            contents[:place] + bytes([contents[place] ^ 1]) + contents[place + 1 :],
        )
        try:
            load_model(model)
            unnoticed.append(contents[max(0, place - 20) : place + 20])
        except ModelError:
            pass
    assert unnoticed == []


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_found(name: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contents = (model / name).read_bytes()
    (model / name).write_bytes(contents[: len(contents) // 2])
    assert name in assert_refused(model, capsys)


def test_weights_that_do_not_fit_into_memory_are_one_line(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read_bytes = Path.read_bytes

    def read(file: Path) -> bytes:
        if file.name == "weights.safetensors":
            raise MemoryError
        return read_bytes(file)

    monkeypatch.setattr(Path, "read_bytes", read)
    line = assert_refused(model, capsys)
    assert "cannot read weights.safetensors: has " in line
    assert "more than the free memory" in line


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(name: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / name).unlink()
    assert name in assert_refused(model, capsys)


def test_a_folder_in_the_place_of_a_file_is_found(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / "encoder.onnx").unlink()
    (model / "encoder.onnx").mkdir()
    assert_refused(model, capsys)


@pytest.mark.parametrize("version", [MODEL_VERSION + 1, MODEL_VERSION - 1, 0, "1", None])
def test_another_contract_version_is_refused(version: object, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_manifest(model, contract_version=version)
    assert "version" in assert_refused(model, capsys)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "{}",
        "null",
        "7",
        f'{{"contract_version": {MODEL_VERSION}}}',
        "\x00\x01",
        '{"contract_version": 1',
    ],
)
def test_a_file_that_is_not_a_manifest_is_refused(text: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / "manifest.json").write_text(text, encoding="utf-8")
    assert "manifest.json" in assert_refused(model, capsys)


def test_a_manifest_that_is_not_text_is_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / "manifest.json").write_bytes(b"\xff\xfe\xfa")
    assert_refused(model, capsys)


@pytest.mark.parametrize(
    "files",
    [
        None,
        [],
        {},
        {"encoder.onnx": "0"},
        {"encoder.onnx": None, "items.parquet": 5, "weights.safetensors": []},
    ],
)
def test_a_manifest_without_the_files_is_refused(
    files: object, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_manifest(model, files=files)
    assert_refused(model, capsys)


@pytest.mark.parametrize("encoder", [None, [], {}, {"max_len": 8}, 7], ids=str)
def test_a_manifest_without_a_shape_is_refused(
    encoder: object, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_manifest(model, encoder=encoder)
    assert "manifest.json" in assert_refused(model, capsys)


@pytest.mark.parametrize("stranger", ["../secret", "/etc/passwd", "a/b", "", ".", "..", "a\x00b"])
def test_a_manifest_names_no_file_outside_the_folder(
    stranger: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = json.loads((model / "manifest.json").read_text(encoding="utf-8"))["files"]
    edit_manifest(model, files=files | {stranger: "0" * 64})
    assert_refused(model, capsys)


@pytest.mark.parametrize("kind", ["missing", "file", "empty folder"])
def test_a_path_without_a_model_is_refused(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model"
    if kind == "file":
        model.write_text("no folder", encoding="utf-8")
    if kind == "empty folder":
        model.mkdir()
    assert_refused(model, capsys)


def test_a_foreign_file_in_the_folder_does_no_harm(model: Path) -> None:
    (model / "notes.txt").write_text("mine", encoding="utf-8")
    assert load_model(model).manifest.files


def test_an_error_leaves_the_old_model_untouched(model: Path) -> None:
    before = {path.name: path.read_bytes() for path in model.iterdir()}

    def fill() -> None:
        with replacing_model(model) as folder:
            (folder / "manifest.json").write_text("half", encoding="utf-8")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fill()
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert names_in(model.parent) == {"model"}


def test_a_new_model_replaces_the_old_one_at_once(model: Path) -> None:
    with replacing_model(model) as folder:
        (folder / "manifest.json").write_text("new", encoding="utf-8")
        # Readers find the old model until the end.
        assert load_model(model).manifest.files
    assert names_in(model) == {"manifest.json"}
    assert names_in(model.parent) == {"model"}


def test_a_model_is_replaced_without_an_exchange_of_folders(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchrec.system.atomic.exchange", lambda one, other: False)
    with replacing_model(model) as folder:
        (folder / "manifest.json").write_text("new", encoding="utf-8")
    assert names_in(model) == {"manifest.json"}
    assert names_in(model.parent) == {"model"}


def test_a_model_behind_a_link_is_never_lost(model: Path) -> None:
    link = model.parent / "link"
    link.symlink_to(model, target_is_directory=True)
    with replacing_model(link) as folder:
        (folder / "manifest.json").write_text("new", encoding="utf-8")
    assert (link / "manifest.json").read_text(encoding="utf-8") == "new"
    assert {name for name in names_in(model.parent) if name.startswith(".")} == set()


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_only_a_model_is_replaced(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "thesis"
    if kind == "folder":
        out.mkdir()
        (out / "chapter").write_text("1", encoding="utf-8")
    else:
        out.write_text("1", encoding="utf-8")
    with pytest.raises(ConfigError, match="thesis"), replacing_model(out):
        pytest.fail("the work has begun")
    assert (out.read_text if kind == "file" else (out / "chapter").read_text)(encoding="utf-8") == "1"
    assert names_in(tmp_path) == {"thesis"}


@pytest.mark.parametrize("out", [".", "/", "..", "missing/model"])
def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").write_text("1", encoding="utf-8")
    with pytest.raises(ConfigError), replacing_model(Path(out)):
        pytest.fail("the work has begun")
    assert names_in(tmp_path) == {"own"}


def test_an_empty_folder_may_become_a_model(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with replacing_model(tmp_path / "model") as folder:
        (folder / "manifest.json").write_text("new", encoding="utf-8")
    assert names_in(tmp_path / "model") == {"manifest.json"}


@pytest.fixture
def umask() -> Iterator[int]:
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def test_file_modes_follow_the_umask(umask: int, tmp_path: Path) -> None:
    with replacing_model(tmp_path / "model") as folder:
        write_model(folder, Vocabulary(pa.array(["a"]), np.array([1])))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "model").iterdir()}
    assert set(modes.values()) == {0o666 & ~umask}
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o777 & ~umask


def test_all_files_of_a_trained_model_have_one_mode() -> None:
    assert len({stat.S_IMODE(path.stat().st_mode) for path in trained_model().iterdir()}) == 1
