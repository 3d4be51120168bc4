import re
from pathlib import Path

import pytest

from batchrec.cli import cli, resolve_options
from batchrec.cli.options import ConfigOption
from batchrec.cli.precedence import file_options, in_file, options_in_file, read_defaults
from batchrec.config.options import Bounds
from tests.support.models import run_cli


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def uncommented() -> str:
    return re.sub(r"^#(?=\S)", "", Path("batchrec.toml").read_text(encoding="utf-8"), flags=re.MULTILINE)


def settings(defaults: dict[str, dict[str, object]] | None) -> dict[str, dict[str, object]]:
    with cli.make_context("batchrec", ["doctor"]) as root:
        root.default_map = defaults
        return {
            name: resolve_options(root, name) for name in in_file(cli) if name not in ("recommend", "commit", "inspect")
        }


def test_the_generated_file_changes_nothing() -> None:
    assert run_cli("init") == 0
    assert {name: table for name, table in (read_defaults(cli, None) or {}).items() if table} == {}


def test_the_uncommented_file_sets_every_option_to_its_default() -> None:
    assert run_cli("init", "--out", "batchrec.toml") == 0
    text = uncommented()
    for name, command in in_file(cli).items():
        table = text.split(f"\n[{name}]\n")[1].split("\n[")[0]
        keys = re.findall(r"^([a-z0-9-]+) = ", table, flags=re.MULTILINE)
        assert keys == list(file_options(command))
    Path("batchrec.toml").write_text(text, encoding="utf-8")
    assert settings(read_defaults(cli, None)) == settings(None)


def test_the_file_holds_the_help_and_the_range_of_each_option() -> None:
    assert run_cli("init") == 0
    text = " ".join(Path("batchrec.toml").read_text(encoding="utf-8").replace("\n# ", " ").split())
    for command in in_file(cli).values():
        for option in options_in_file(command):
            assert " ".join(str(option.help).split()) in text
            if isinstance(option, ConfigOption) and option.bounds != Bounds():
                assert f"Range: {option.bounds}. #{option.opts[0].removeprefix('--')} = " in text


def test_an_existing_file_is_not_changed(capsys: pytest.CaptureFixture[str]) -> None:
    Path("batchrec.toml").write_text("# mine", encoding="utf-8")
    assert run_cli("init") == 2
    assert "batchrec.toml: already exists" in capsys.readouterr().err
    assert Path("batchrec.toml").read_text(encoding="utf-8") == "# mine"
    assert run_cli("init", "--out", "no/folder.toml") == 2
