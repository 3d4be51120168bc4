"""The page of explore in a browser: its layout, what screen readers get, and the list that moves."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest
import uvicorn

from batchrec.explorer.app import make_app
from batchrec.explorer.content import Explorer
from tests.support.explorers import BAD_TITLE, explored_nights, one_model, two_models

WIDTHS = (360, 768, 1440)
SCHEMES = ("light", "dark")
STATES = {
    "start": (one_model, ""),
    "user": (one_model, "?user=7"),
    "changed": (two_models, "?user=7&without=1001&item=1032&item=1033&was=user%3D7"),
    "two nights": (explored_nights, "?user=3"),
    "unknown user": (one_model, f"?user={'no-such-user' * 20}"),
    "ambiguous title": (one_model, "?user=7&add=Twins"),
    "missing page": (one_model, "missing"),
}


@contextmanager
def served(explorer: Explorer) -> Iterator[str]:
    """Serve an explorer from a thread, and yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(make_app(explorer), log_config=None, lifespan="off"))
        thread = Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[Callable[[], Explorer], str]]:
    """Yield the addresses of one model, two models and two nights."""
    with served(one_model()) as one, served(two_models()) as two, served(explored_nights()) as nights:
        yield {one_model: one, two_models: two, explored_nights: nights}


@pytest.fixture
def show(addresses: dict[Callable[[], Explorer], str], browser: Any) -> Iterator[Any]:
    """Yield a function that opens a state of the page; at the end the console holds no message."""
    contexts, messages = [], []

    def open_page(state: str, width: int = 1440, scheme: str = "light", *, scripts: bool = True) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=scripts
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        which, query = STATES[state]
        page.goto(addresses[which] + query)
        return page

    yield open_page
    for context in contexts:
        context.close()
    # A browser reports a missing page itself.
    assert [message for message in messages if "404 (Not Found)" not in message] == []


def items_of(page: Any) -> list[str]:
    rows: list[str] = page.eval_on_selector_all(".rows > li", "rows => rows.map(row => row.dataset.row)")
    return rows


def said(page: Any, text: str) -> None:
    """Wait until the region that screen readers announce has a text."""
    page.wait_for_function("text => document.getElementById('status').textContent.includes(text)", arg=text)


# Of the state with most on it every width in both schemes, of the others the extremes.
LOOKS = [("changed", width, scheme) for width in WIDTHS for scheme in SCHEMES]
LOOKS += [(state, *look) for state in STATES if state != "changed" for look in ((360, "dark"), (1440, "light"))]


@pytest.mark.parametrize(("state", "width", "scheme"), LOOKS)
def test_the_page_fits_and_has_no_barrier(show: Any, state: str, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the browser extra is not installed")
    page = show(state, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    outside = "e => e.filter(x => x.getBoundingClientRect().right > innerWidth + 1).map(x => x.outerHTML.slice(0, 99))"
    assert page.eval_on_selector_all("h1, h2, p, li, a, input, button, section", outside) == []
    violations = axe.Axe().run(page).response["violations"]
    assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in violations] == []


def test_dark_mode_changes_the_page(show: Any) -> None:
    colours = [
        show("user", 768, scheme).evaluate("getComputedStyle(document.body).backgroundColor") for scheme in SCHEMES
    ]
    assert colours[0] != colours[1]


def test_a_user_is_found_by_id(show: Any) -> None:
    page = show("start")
    page.get_by_label("User id").fill("7")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="User 7").wait_for()
    said(page, "causal: 10 items")
    assert page.url.endswith("/?user=7")
    assert len(items_of(page)) == 10
    assert page.title() == "User 7 – batchrec"


def test_an_unknown_user_is_said_in_one_line(show: Any) -> None:
    page = show("start")
    page.get_by_label("User id").fill("<b>nobody</b>")
    page.get_by_role("button", name="Find").click()
    said(page, "there is no user '<b>nobody</b>' in the histories")
    assert page.locator(".alarm").text_content() == page.locator("#status").text_content()


def test_an_item_is_added_by_keyboard_and_the_list_moves(show: Any) -> None:
    page = show("user")
    before = items_of(page)
    page.get_by_label("Add an item").focus()
    page.keyboard.type("<script>document.title = ")
    page.keyboard.press("Enter")
    said(page, " in, ")
    now = items_of(page)
    assert now != before
    assert page.locator(".events li").first.locator(".title").text_content() == BAD_TITLE
    n_in = len({*now} - {*before})
    assert f"causal: {n_in} in, {n_in} out, " in page.locator("#status").text_content()
    assert page.locator(".move.in").count() == n_in
    assert page.locator(".gone li").count() == n_in
    # The next item can be typed at once.
    assert page.evaluate("document.activeElement.id") == "add"
    assert page.get_by_label("Add an item").input_value() == ""
    assert page.title() == "User 7 – batchrec"


def test_an_item_is_removed_and_put_back_in_its_place(show: Any) -> None:
    page = show("changed")
    before = items_of(page)
    page.locator("body").press("Tab")
    removes = page.get_by_role("link", name="Remove ")
    # Behind the two that were added.
    removes.nth(2).focus()
    # The keyboard stays at the same item.
    for text, n_left_out in (("Put back", 1), ("Remove", 0)):
        page.keyboard.press("Enter")
        page.wait_for_function("text => document.activeElement.textContent.startsWith(text)", arg=text)
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        assert page.locator("li.left-out").count() == n_left_out
    assert items_of(page) == before


def test_the_back_button_undoes_a_change(show: Any) -> None:
    page = show("user")
    before = items_of(page)
    page.get_by_role("link", name="Remove ").first.click()
    said(page, " out, ")
    page.go_back()
    said(page, "10 items")
    assert items_of(page) == before
    page.go_forward()
    said(page, " out, ")
    page.get_by_role("link", name="Undo all changes").click()
    said(page, "10 items")
    assert items_of(page) == before


def test_two_lists_are_side_by_side_on_a_wide_screen_and_below_each_other_on_a_phone(show: Any) -> None:
    for width in WIDTHS:
        boxes = [section.bounding_box() for section in show("two nights", width).locator("section.list").all()]
        if width == 360:
            assert boxes[0]["y"] + boxes[0]["height"] < boxes[1]["y"]
        else:
            assert boxes[0]["x"] + boxes[0]["width"] < boxes[1]["x"]
            assert boxes[0]["y"] == boxes[1]["y"]


def test_the_page_works_without_scripts(show: Any) -> None:
    page = show("user", scripts=False)
    before = page.locator(".rows .title").all_text_contents()
    page.get_by_label("Add an item").fill("Film 3")
    page.get_by_role("button", name="Add").click()
    assert page.locator(".events .title").first.text_content() == "Film 3, The"
    page.get_by_role("link", name="Remove Film 3, The").click()
    assert page.locator(".rows .title").all_text_contents() == before


def test_the_page_says_that_the_command_has_ended(browser: Any) -> None:
    with served(one_model()) as address:
        page = browser.new_page()
        page.goto(f"{address}?user=7")
    page.get_by_role("link", name="Remove ").first.click()
    said(page, "batchrec explore has ended.")
    assert page.locator("#status").is_visible()
    page.close()
