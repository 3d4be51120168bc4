"""The page of explore, asked by a client without a network."""

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from batchrec.errors import InputError
from batchrec.explorer.app import make_app
from batchrec.explorer.content import Explorer
from batchrec.explorer.views import View
from batchrec.model.directory import load_model
from tests.support.explorers import BAD_TITLE, LONG_TITLE, Shown, explored_nights, of_models, one_model, two_models
from tests.support.models import (
    model_of,
    names_in,
    string_model,
    torch_scores,
    trained_model,
    training_histories,
    write_sequences,
)
from tests.support.night_pages import COLD, HISTORIES, two_nights
from tests.support.nights import Company, night

HISTORY = training_histories()[7]


def client(explorer: Explorer) -> TestClient:
    return TestClient(make_app(explorer), base_url="http://127.0.0.1", raise_server_exceptions=False)


def show(explorer: Explorer, *fields: tuple[str, object], path: str = "/") -> Shown:
    """Return the page of an address, or of the fields of a query."""
    answer = client(explorer).get(f"{path}?{urlencode(fields)}" if fields else path)
    assert answer.status_code == 200
    return Shown(answer.text)


def best(history: list[int], model: Path | None = None, k: int = 10) -> dict[Any, float]:
    """Return the scores by torch of the best unseen items after a history, best first."""
    scores = torch_scores(history, load_model(model or trained_model()))
    unseen = sorted((item for item in scores if item not in history), key=lambda item: -scores[item])
    return {item: scores[item] for item in unseen[:k]}


def expected_moves(before: list[Any], now: list[Any]) -> list[str]:
    """Return what is next to each row: new, or how it moved."""
    texts = []
    for place, item in enumerate(now):
        by = before.index(item) - place if item in before else None
        texts.append("new" if by is None else "" if by == 0 else f"▲{by}" if by > 0 else f"▼{-by}")
    return texts


def test_a_user_gets_the_models_best_with_the_items_that_carry_them() -> None:
    shown = show(one_model(), ("user", 7))
    assert shown.items == [list(best(HISTORY))]
    assert [float(row.texts["number"]) for row in shown.lists[0]] == pytest.approx([*best(HISTORY).values()], abs=0.006)
    assert [row.texts["title"] for row in shown.events] == [f"Film {item - 1000}, The" for item in HISTORY[::-1][:10]]
    model = load_model(trained_model())
    without = {item: torch_scores([x for x in HISTORY if x != item], model) for item in HISTORY}
    for row in shown.lists[0]:
        lost = {item: best(HISTORY)[row.item] - scores[row.item] for item, scores in without.items()}
        carrying = [item for item in sorted(lost, key=lambda item: -lost[item]) if lost[item] >= 0.005][:3]
        said = row.texts["because"].split()
        assert [word for word in said if "." in word] == [f"{lost[item]:.2f}" for item in carrying]


def test_an_item_is_removed_and_put_back_and_the_list_moves() -> None:
    first = show(one_model(), ("user", 7))
    newest = HISTORY[-1]
    (remove,) = first.events[0].links
    after = show(one_model(), path=remove)
    shorter = list(best([item for item in HISTORY if item != newest]))
    assert after.items == [shorter]
    assert [row.move for row in after.lists[0]] == expected_moves(first.items[0], shorter)
    assert len(after.gone[0]) == len({*first.items[0]} - {*shorter})
    assert "left out" in after.events[0].texts["tag left-out"]
    n_in = len({*shorter} - {*first.items[0]})
    assert after.texts["hidden"].find(f"causal: {n_in} in, {n_in} out, ") >= 0
    (put_back,) = after.events[0].links
    assert show(one_model(), path=put_back).items == first.items


def test_an_item_is_added_by_its_title_as_the_newest_event() -> None:
    new = next(item for item in range(1000, 1030) if item not in HISTORY)
    shown = show(one_model(), ("user", 7), ("was", "user=7"), ("add", f"film {new - 1000}"))
    assert shown.items == [list(best([*HISTORY, new]))]
    assert shown.events[0].texts["tag added"] == "added"
    assert [row.move for row in shown.lists[0]] == expected_moves(list(best(HISTORY)), shown.items[0])
    # Its address has the id instead of the title, so that it can be kept.
    assert f"item={new}" in shown.html
    assert "add=" not in shown.html


def test_a_history_of_items_needs_no_user() -> None:
    shown = show(one_model(), ("item", 1003), ("add", "Film 5"))
    assert shown.items == [list(best([1003, 1005]))]
    assert [row.texts["title"] for row in shown.events] == ["Film 5, The", "Film 3, The"]


def test_two_models_are_compared_with_each_other_or_each_with_itself() -> None:
    models = model_of("causal"), model_of("masked")
    shown = show(two_models(), ("user", 7))
    lists = [list(best(HISTORY, model)) for model in models]
    assert shown.items == lists
    assert [row.move for row in shown.lists[0]] == [""] * 10
    assert [row.move for row in shown.lists[1]] == expected_moves(*lists)
    shown = show(two_models(), ("user", 7), ("item", 1003), ("was", "user=7"))
    now = [list(best([*HISTORY, 1003], model)) for model in models]
    assert [[row.move for row in rows] for rows in shown.lists] == [
        expected_moves(*pair) for pair in zip(lists, now, strict=True)
    ]


def test_a_model_without_titles_works_by_ids() -> None:
    explorer = of_models(trained_model())
    shown = show(explorer, ("user", 7), ("add", "1003"))
    assert shown.items == [list(best([*HISTORY, 1003]))]
    assert shown.events[0].texts["title"] == "1003"
    assert "The id of an item." in shown.texts["hint"]
    unknown = show(explorer, ("user", 7), ("add", "Toy Story"))
    assert unknown.items == [list(best(HISTORY))]
    assert unknown.events[0].texts["tag unknown"] == "unknown to causal"


def test_models_with_other_ids_say_what_they_do_not_know(tmp_path: Path) -> None:
    # The causal model has integers, the other one text.
    sequences = write_sequences(tmp_path / "s.parquet", {" a/b": ["1003", "item-1005"]}, pa.string(), pa.string())
    shown = show(of_models(trained_model(), string_model(), sequences=sequences), ("user", "a/b"))
    assert [row.texts["tag unknown"] for row in shown.events] == ["unknown to causal", "unknown to string-model"]
    assert shown.items == [list(best([1003])), [f"item-{item}" for item in best([1005])]]


def test_titles_are_text_and_never_markup() -> None:
    shown = show(one_model(), ("item", 1033), ("item", 1032))
    assert "<script>d" not in shown.html
    assert [row.texts["title"] for row in shown.events] == [LONG_TITLE, BAD_TITLE]


@pytest.mark.parametrize(
    "user", ["0", "x' or 1=1", '"><script>alert(1)</script>', "../../etc/passwd", "\0", "\ud800", "ÄÖ 漢字", "9" * 30]
)
def test_an_unknown_user_is_one_line(user: str) -> None:
    answer = client(one_model()).get("/", params={"user": user.encode("utf-8", "surrogatepass")})
    shown = Shown(answer.text)
    assert answer.status_code == 200
    assert shown.texts["alarm"].startswith("there is no user ")
    assert shown.texts["alarm"].endswith("sequences.parquet")
    assert len(shown.texts["alarm"].splitlines()) == 1
    assert shown.lists == []
    assert "<script>a" not in answer.text


@pytest.mark.parametrize(
    ("typed", "said"),
    [("Twins", "ambiguous: 'Twins (1988)' (id 1030)"), ("Flim 7", "nearest: 'Film"), ("<b>", "&lt;b")],
)
def test_a_title_that_is_not_found_leaves_the_page_as_it_was(typed: str, said: str) -> None:
    shown = show(one_model(), ("user", 7), ("was", "user=7"), ("add", typed))
    assert shown.items == [list(best(HISTORY))]
    assert said in shown.html.replace("&#39;", "'")
    assert len(shown.texts["alarm"].splitlines()) == 1
    # The text can be corrected.
    assert typed.replace("<", "&lt;").replace(">", "&gt;") in shown.html


@pytest.mark.parametrize("query", ["user=%ff%00", "was=was%3D1", "item=&item=", "&&=&%", "user=1&user=2", "was=%26"])
def test_any_query_gets_a_page(query: str) -> None:
    assert client(one_model()).get(f"/?{query}").status_code == 200


def test_a_user_who_is_missing_is_named_also_as_the_one_before_the_change() -> None:
    for fields in ([("user", "nope")], [("user", 7), ("was", "user=nope")]):
        assert "there is no user &#39;nope&#39;" in show(one_model(), *fields).html


def test_requests_have_limits() -> None:
    assert "600 characters" in show(one_model(), ("user", "x" * 600)).texts["alarm"]
    assert "more than 100" in show(one_model(), *[("item", number) for number in range(101)]).texts["alarm"]
    assert "more than 100" in show(one_model(), ("was", urlencode([("item", 1)] * 101))).texts["alarm"]


def test_long_histories_are_cut_and_explained_if_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchrec.explorer.content._N_EXPLAINED", 12)
    long = [1000 + number % 15 for number in range(30)]
    explorer = of_models(trained_model(), sequences=write_sequences(tmp_path / "s.parquet", {1: long, 2: long[:12]}))
    cut = show(explorer, ("user", 1))
    assert len(cut.events) == 10
    assert "Show 20 older" in cut.html
    assert "15 items" in cut.html
    assert {row.texts["because"] for row in cut.lists[0]} == {""}
    whole = show(explorer, ("user", 1), ("all", 1), ("why", 1))
    assert len(whole.events) == 30
    assert any(row.texts["because"] for row in whole.lists[0])
    # A change keeps what is shown.
    assert whole.events[0].links[0].endswith("&all=1&why=1")
    assert any(row.texts["because"] for row in show(explorer, ("user", 2)).lists[0])


def test_users_without_a_known_item_have_no_list(tmp_path: Path) -> None:
    explorer = of_models(trained_model(), sequences=write_sequences(tmp_path / "s.parquet", {1: [5], 2: []}))
    for user in (1, 2):
        shown = show(explorer, ("user", user))
        assert shown.items == [[]]
        assert "knows no item of this history" in shown.html
    assert show(explorer, ("user", 1), ("item", 1003)).items == [list(best([1003]))]


def published(number: int, user: int) -> list[int]:
    rows = pq.read_table(Company(two_nights()).archive.table(night(number))).to_pylist()
    return [row["item_id"] for row in rows if row["user_id"] == user]


def test_two_nights_show_what_was_published() -> None:
    shown = show(explored_nights(), ("user", 3))
    lists = [published(number, 3) for number in range(2)]
    assert shown.items == lists
    assert [row.move for row in shown.lists[1]] == expected_moves(*lists)
    assert shown.html.count("As published.") == 2
    # Only the histories of the newest night are kept.
    assert {row.texts["because"] for row in shown.lists[0]} == {""}
    assert any(row.texts["because"] for row in shown.lists[1])


def test_a_changed_history_is_ranked_by_the_models_of_the_nights() -> None:
    shown = show(explored_nights(), ("user", 3), ("without", HISTORIES[3][0]), ("was", "user=3"))
    history = [item for item in HISTORIES[3] if item != HISTORIES[3][0]]
    assert shown.items[1] == list(best(history, k=5))
    assert shown.html.count("By the model, without rules.") == 2
    assert [row.move for row in shown.lists[1]] == expected_moves(list(best(HISTORIES[3], k=5)), shown.items[1])


def test_a_cold_user_has_the_published_list() -> None:
    shown = show(explored_nights(), ("user", COLD))
    assert shown.items[1] == published(1, COLD)
    assert "popular" in shown.lists[1][0].texts["tag"]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1]", "localhost.evil:80"])
def test_other_host_names_are_refused(host: str) -> None:
    answer = client(one_model()).get("/?user=7", headers={"host": host})
    assert answer.status_code == 400
    assert "Film" not in answer.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_but_reading_is_answered(method: str) -> None:
    assert client(one_model()).request(method, "/?user=7").status_code == 405


@pytest.mark.parametrize("path", ["/model", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/explore.html"])
def test_no_path_leads_to_a_file(path: str) -> None:
    answer = client(one_model()).get(path)
    assert answer.status_code == 404
    assert Shown(answer.text).texts["alarm"] == "Not Found"


def test_the_page_loads_only_from_itself_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model_files = names_in(trained_model())
    for path in ("/?user=7", "/explore.css", "/explore.js"):
        answer = client(one_model()).get(path, headers={"host": "localhost:1234"})
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none';")
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers
        assert "http" not in answer.text
    assert names_in(tmp_path) == set()
    assert names_in(trained_model()) == model_files


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("recs.parquet: cannot be read: gone"), "recs.parquet: cannot be read"),
        (ZeroDivisionError(), "a bug"),
    ],
)
def test_other_errors_are_one_line_on_the_page(error: Exception, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(View, "listed", fail)
    answer = client(of_models(trained_model())).get("/?user=7")
    assert answer.status_code == 500
    assert line in Shown(answer.text).texts["alarm"]
    assert "Traceback" not in answer.text
