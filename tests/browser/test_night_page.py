"""The page of a night in a browser: its layout, its colours, and what screen readers get."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchrec.errors import GateError
from batchrec.report_page.page import write_page
from tests.support.night_pages import last_night, pages_of, write_evaluation
from tests.support.nights import company, night

WIDTHS = (360, 768, 1440)
SCHEMES = ("light", "dark")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the pages of a published and of a failed night."""
    folder = tmp_path_factory.mktemp("pages")
    write_page(last_night(write_evaluation(folder)), folder / "published.html")
    with pytest.MonkeyPatch.context() as patch, company(folder, patch) as made:
        with pytest.raises(GateError):
            made.run(0, gate_min_coverage=1.0)
        write_page(pages_of(made).files(night(0)), folder / "failed.html")
    return {name: folder / f"{name}.html" for name in ("published", "failed")}


@pytest.fixture(params=["published", "failed"])
def shown(request: pytest.FixtureRequest, pages: dict[str, Path], browser: Any) -> Iterator[Any]:
    """Yield a function that opens the page at a width and in a colour scheme; at the end the console is empty."""
    contexts, messages = [], []

    def show(width: int, scheme: str) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto(pages[request.param].as_uri())
        return page

    yield show
    for context in contexts:
        context.close()
    assert messages == []


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_and_has_no_barrier(shown: Any, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the browser extra is not installed")
    page = shown(width, scheme)
    # Tables may be wider than a phone: they scroll, the page does not.
    assert page.evaluate("document.documentElement.scrollWidth") == width
    outside = "e => e.filter(x => x.getBoundingClientRect().right > innerWidth + 1).map(x => x.outerHTML.slice(0, 99))"
    assert page.eval_on_selector_all("h1, h2, h3, p, dl, dd, figure, svg, .scroll, details", outside) == []
    page.eval_on_selector_all("details", "folded => folded.forEach(one => one.open = true)")
    violations = axe.Axe().run(page).response["violations"]
    assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in violations] == []


def test_dark_mode_changes_page_and_charts(shown: Any) -> None:
    colours = []
    for scheme in SCHEMES:
        page = shown(768, scheme)
        colours.append(
            [page.evaluate("getComputedStyle(document.body).backgroundColor")]
            + [
                page.locator(f"#night svg {element}").first.evaluate("x => getComputedStyle(x).fill")
                for element in ("text", "path[fill^='var']")
            ]
        )
    assert all(light != dark for light, dark in zip(*colours, strict=True))


def test_charts_show_their_text_in_a_size_that_can_be_read(shown: Any) -> None:
    sizes = shown(360, "light").eval_on_selector_all(
        "svg text", "texts => texts.filter(x => x.textContent).map(x => x.getBoundingClientRect().height)"
    )
    assert sizes
    assert min(sizes) >= 9


def test_the_navigation_leads_to_each_section(shown: Any) -> None:
    page = shown(1440, "light")
    for link in page.locator("nav a").all():
        link.click()
        heading = page.locator(f"{link.get_attribute('href')} h2")
        box, nav = heading.bounding_box(), page.locator("nav").bounding_box()
        assert nav["y"] + nav["height"] <= box["y"] < 900


def test_a_printed_page_hides_the_navigation_and_cuts_no_table(shown: Any) -> None:
    page = shown(1440, "dark")
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
