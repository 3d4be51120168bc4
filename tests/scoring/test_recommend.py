import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batchrec.arrays import Floats, Longs
from batchrec.config import RecommendConfig, ScoringConfig
from batchrec.errors import ConfigError, InputError, ModelError
from batchrec.model.directory import load_model, write_manifest
from batchrec.model.vocabulary import Vocabulary
from batchrec.scoring import leave_one_out
from batchrec.scoring.find_item import find_item
from batchrec.scoring.recommend import recommend
from batchrec.scoring.score import score
from batchrec.scoring.scorer import Scorer
from batchrec.sources.catalogue import Catalogue
from tests.scoring.test_score import recs_of
from tests.support.models import (
    CONFIG,
    N_ITEMS,
    SHAPE,
    names_in,
    run_cli,
    string_model,
    torch_scores,
    trained_model,
    training_histories,
    training_sequences,
    write_sequences,
)

FILMS = {
    1: "Toy Story (1995)",
    2: "Sabrina (1954)",
    3: "Sabrina (1995)",
    4: "Avengers, The (2012)",
    5: "Avengers: Infinity War - Part I (2018)",
    6: "Harry Potter and the Sorcerer's Stone (a.k.a. Harry Potter and the Philosopher's Stone) (2001)",
    7: "City of Lost Children, The (Cité des enfants perdus, La) (1995)",
    8: "Spider-Man (2002)",
    9: "Spider-Man 3 (2007)",
    10: "300 (2007)",
    11: "Léon: The Professional (a.k.a. The Professional) (Léon) (1994)",
    12: "Bug's Life, A (1998)",
    13: "WALL·E (2008)",
    14: "Untitled",
    300: "Fargo (1996)",
    400: "2001: A Space Odyssey (1968)",
    401: "Twins (1988)",
    402: "Twins (1988)",
}
CATALOGUE = Catalogue(pa.array([str(item) for item in FILMS]), pa.array(list(FILMS.values())))


@pytest.mark.parametrize(
    ("wanted", "item"),
    [
        ("Toy Story (1995)", 1),
        ("Toy Story", 1),
        ("toy story", 1),
        ("  TOY   STORY ", 1),
        ("Sabrina (1954)", 2),
        ("sabrina ( 1995 )", 3),
        ("The Avengers", 4),
        ("Avengers, The", 4),
        ("Avengers", 4),
        ("the avengers (2012)", 4),
        ("Avengers: Infinity War", 5),
        ("infinity war part i", 5),
        ("Harry Potter and the Sorcerer's Stone", 6),
        ("Harry Potter and the Philosopher's Stone", 6),
        ("Harry Potter and the Philosopher’s Stone", 6),
        ("Sorcerer's Stone", 6),
        ("The City of Lost Children", 7),
        ("La Cité des enfants perdus", 7),
        ("cite des enfants perdus", 7),
        ("Spider-Man", 8),
        ("spider man", 8),
        ("Spider-Man 3", 9),
        ("300", 10),
        ("10", 10),
        ("Leon: The Professional", 11),
        ("The Professional", 11),
        ("Leon", 11),
        ("A Bug's Life", 12),
        ("Bugs Life", 12),
        ("Wall-E", 13),
        ("untitled", 14),
        ("fargo", 300),
        ("2001: A Space Odyssey", 400),
        ("Space Odyssey", 400),
        ("401", 401),
        ("402", 402),
    ],
)
def test_an_item_is_found_by_its_usual_names(wanted: str, item: int) -> None:
    assert find_item(wanted, CATALOGUE) == str(item)


@pytest.mark.parametrize(
    ("wanted", "listed"),
    [
        ("Sabrina", ["Sabrina (1954)", "Sabrina (1995)"]),
        ("Harry", []),
        ("Story", []),
        ("man", ["Spider-Man (2002)", "Spider-Man 3 (2007)"]),
    ],
)
def test_an_ambiguous_title_lists_its_matches(wanted: str, listed: list[str]) -> None:
    if not listed:
        # A part that only one title has is enough.
        assert find_item(wanted, CATALOGUE)
        return
    with pytest.raises(ConfigError, match="ambiguous") as caught:
        find_item(wanted, CATALOGUE)
    assert all(title in str(caught.value) for title in listed)


def test_equal_titles_are_told_apart_by_year_or_id() -> None:
    with pytest.raises(ConfigError, match="ambiguous") as caught:
        find_item("Twins", CATALOGUE)
    assert "401" in str(caught.value)
    assert "402" in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "nearest"),
    [
        ("Toy Storry", "Toy Story (1995)"),
        ("Harry Potter and the Philosopher Stone", FILMS[6]),
        ("Sabrina (1960)", "Sabrina (1954)"),
        ("Sabrina (1960)", "Sabrina (1995)"),
        ("spidermann", "Spider-Man (2002)"),
    ],
)
def test_an_unknown_title_lists_the_nearest_ones(wanted: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_item(wanted, CATALOGUE)
    assert str(caught.value).count(nearest) == 1


@pytest.mark.parametrize("wanted", ["", " ", "(1995)", "!!!", "'; drop table", "The"])
def test_a_text_without_a_name_is_an_error(wanted: str) -> None:
    with pytest.raises(ConfigError):
        find_item(wanted, CATALOGUE)


@pytest.fixture
def movies(tmp_path: Path) -> str:
    lines = [f'{1000 + number},"Film no. {number}, The ({1960 + number})"' for number in range(N_ITEMS)]
    lines += ["5000,Newest Film (2026)", "tt7,Another Code (2026)"]
    (tmp_path / "movies.csv").write_text("\n".join(["movieId,title", *lines]), encoding="utf-8")
    return str(tmp_path / "movies.csv")


def test_recommendations_are_the_models_best_with_titles(movies: str) -> None:
    result = recommend(["film no. 3", "The Film no. 5 (1965)"], trained_model(), RecommendConfig(items=movies, top_k=7))
    assert [(item.item_id, item.title) for item in result.history] == [
        (1003, "Film no. 3, The (1963)"),
        (1005, "Film no. 5, The (1965)"),
    ]
    assert result.unknown_to_model == []
    scores = torch_scores([1003, 1005], load_model(trained_model()))
    best = sorted((item for item in scores if item not in {1003, 1005}), key=lambda item: -scores[item])[:7]
    assert [row.item_id for row in result.recommendations] == best
    assert [row.rank for row in result.recommendations] == [1, 2, 3, 4, 5, 6, 7]
    assert [row.score for row in result.recommendations] == pytest.approx([scores[item] for item in best], abs=1e-5)
    assert all(row.title.startswith(f"Film no. {int(row.item_id) - 1000},") for row in result.recommendations)
    assert {row.source for row in result.recommendations} == {"model"}


def test_the_order_of_the_history_counts(movies: str) -> None:
    config = RecommendConfig(items=movies, top_k=N_ITEMS - 2)
    one, other = (recommend(names, trained_model(), config) for names in (["1003", "1005"], ["1005", "1003"]))
    assert [row.score for row in one.recommendations] != [row.score for row in other.recommendations]


def test_ids_need_no_catalogue() -> None:
    result = recommend(["1003", "1005"], trained_model())
    assert [(item.item_id, item.title) for item in result.history] == [(1003, ""), (1005, "")]
    assert len(result.recommendations) == 10
    assert all(isinstance(row.item_id, int) and row.title == "" for row in result.recommendations)


def test_string_ids_need_no_catalogue() -> None:
    result = recommend(["item-1003", "no such item"], string_model())
    assert [item.item_id for item in result.history] == ["item-1003", "no such item"]
    assert [item.item_id for item in result.unknown_to_model] == ["no such item"]
    assert all(str(row.item_id).startswith("item-") for row in result.recommendations)


def test_items_unknown_to_the_model_are_reported(movies: str) -> None:
    result = recommend(["Newest Film", "film no. 3"], trained_model(), RecommendConfig(items=movies))
    assert [item.item_id for item in result.unknown_to_model] == [5000]
    other = recommend(["film no. 3"], trained_model(), RecommendConfig(items=movies))
    assert result.recommendations == other.recommendations


def test_a_history_of_only_unknown_items_is_an_error(movies: str) -> None:
    with pytest.raises(ConfigError, match="Newest Film"):
        recommend(["Newest Film"], trained_model(), RecommendConfig(items=movies))


@pytest.mark.parametrize("wanted", [["Toy Story"], ["1003", "Toy Story"], ["1003", "99999"], ["1.5"]])
def test_a_title_without_a_catalogue_is_an_unknown_item(wanted: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    exit_code = run_cli("recommend", "--model", trained_model(), *wanted)
    printed = capsys.readouterr()
    assert (exit_code, len(printed.err.splitlines())) == ((0, 0) if "1003" in wanted else (2, 1))
    assert wanted[-1] in printed.out + printed.err


def test_a_catalogue_may_hold_ids_that_are_not_integers(movies: str) -> None:
    result = recommend(["Another Code", "film no. 3"], trained_model(), RecommendConfig(items=movies))
    assert [item.title for item in result.unknown_to_model] == ["Another Code (2026)"]


def test_top_k_above_the_catalogue_is_an_error() -> None:
    assert len(recommend(["1003"], trained_model(), RecommendConfig(top_k=N_ITEMS)).recommendations) == N_ITEMS - 1
    with pytest.raises(ConfigError, match=str(N_ITEMS)):
        recommend(["1003"], trained_model(), RecommendConfig(top_k=N_ITEMS + 1))


def test_errors_have_their_classes(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        recommend(["1003"], tmp_path / "none")
    with pytest.raises(InputError):
        recommend(["1003"], trained_model(), RecommendConfig(items=str(tmp_path / "none.csv")))


def test_the_screen_shows_titles(movies: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--items", movies, "--top-k", 3, "--model", trained_model())
    assert run_cli("recommend", *options, "film no. 3", "newest film") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "After"
    assert "Film no. 3, The (1963)" in lines[1]
    assert "Newest Film (2026)  (unknown to the model)" in lines[2]
    assert [line.split()[0] for line in lines[4:]] == ["1", "2", "3"]
    assert all("Film no." in line for line in lines[4:])


def test_json_is_one_line(movies: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("recommend", "--items", movies, "--model", trained_model(), "--json", "film no. 3") == 0
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 1
    assert len(json.loads(printed)["recommendations"]) == 10


def test_integer_ids_may_be_text_in_the_catalogue(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(trained_model(), folder)
    vocabulary = load_model(folder).vocabulary
    for name in ("manifest.json", "items.parquet"):
        (folder / name).unlink()
    write_manifest(folder, Vocabulary(vocabulary.item_ids.cast(pa.string()), vocabulary.n_events), SHAPE, CONFIG, {})
    integers, text = recommend(["1003"], trained_model()), recommend(["1003"], folder)
    assert [str(row.item_id) for row in integers.recommendations] == [row.item_id for row in text.recommendations]
    assert names_in(tmp_path) == {"model"}


def without(history: list[int], item: int) -> dict[Any, float]:
    """Return the scores of torch after a history without one item."""
    return torch_scores([other for other in history if other != item], load_model(trained_model()))


def test_the_reasons_are_the_items_without_which_the_score_falls_most() -> None:
    history = [1003, 1005, 1011, 1003, 1020, 1005]
    result = recommend(list(map(str, history)), trained_model(), RecommendConfig(why=True))
    for row in result.recommendations:
        lost = {item: row.score - without(history, item)[row.item_id] for item in {*history}}
        expected = sorted((item for item in lost if lost[item] > 0), key=lambda item: -lost[item])[:3]
        assert [reason.item_id for reason in row.because] == expected
        assert [reason.lost_score for reason in row.because] == pytest.approx(
            [lost[item] for item in expected], abs=1e-4
        )
    assert {len(row.because) for row in result.recommendations} - {0}
    plain = recommend(list(map(str, history)), trained_model())
    assert [replace(row, because=[]) for row in result.recommendations] == plain.recommendations


def test_a_long_history_is_scored_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    config, history = RecommendConfig(why=True), ["1003", "1005", "1011", "1020"]
    whole = recommend(history, trained_model(), config)
    sizes: list[int] = []
    scores = Scorer.scores

    def counted(scorer: Scorer, batch: pa.RecordBatch, items: Longs) -> Floats:
        sizes.append(len(batch))
        return scores(scorer, batch, items)

    monkeypatch.setattr(Scorer, "scores", counted)
    monkeypatch.setattr(leave_one_out, "_MAX_EVENTS", 3 * len(history))
    parts = recommend(history, trained_model(), config)
    assert sorted(sizes) == [1, 1, 3]
    for one, other in zip(whole.recommendations, parts.recommendations, strict=True):
        assert [reason.item_id for reason in one.because] == [reason.item_id for reason in other.because]
        assert [reason.lost_score for reason in one.because] == pytest.approx(
            [reason.lost_score for reason in other.because], abs=1e-5
        )


def test_the_only_item_of_a_history_is_the_reason() -> None:
    result = recommend("1003", trained_model(), RecommendConfig(why=True))
    positive = [row for row in result.recommendations if row.score > 0]
    assert [[reason.item_id for reason in row.because] for row in positive] == [[1003]] * len(positive)
    assert [row.because[0].lost_score for row in positive] == [row.score for row in positive]


def test_a_user_gets_the_list_of_the_table(tmp_path: Path, movies: str) -> None:
    sequences, model = training_sequences(), trained_model()
    config = ScoringConfig(device="cpu", top_k=10)
    score(sequences, model, config, tmp_path / "recs.parquet")
    expected = recs_of(tmp_path / "recs.parquet")[7]
    result = recommend(model=model, config=RecommendConfig(user=" 7", items=movies, why=True), sequences=sequences)
    assert [row.item_id for row in result.recommendations] == [row["item_id"] for row in expected]
    assert [row.score for row in result.recommendations] == pytest.approx([row["score"] for row in expected], abs=1e-5)
    assert [item.item_id for item in result.history] == training_histories()[7]
    assert {reason.item_id for row in result.recommendations for reason in row.because} <= {*training_histories()[7]}


def test_the_command_names_reasons_and_shows_the_newest_items(
    tmp_path: Path, movies: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sequences = write_sequences(tmp_path / "s.parquet", {"a": [1000 + number for number in range(25)]}, pa.string())
    options = ["--model", trained_model(), "--sequences", sequences, "--user", "a", "--items", movies, "--why"]
    assert run_cli("recommend", *options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == ["      5 older items, and", "      Film no. 5, The (1965)"]
    assert any(line.startswith("      because of Film no. ") for line in lines)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "expected titles or ids of items, or --user ID"),
        (["--user", "7", "1003"], "and not both"),
        (["--user", "no such"], "has no such user"),
    ],
)
def test_a_user_or_items_are_needed(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", str(trained_model()), "--sequences", str(training_sequences()), *options]
    assert run_cli("recommend", *options) == 2
    assert said in capsys.readouterr().err
