"""Charts without drawings, which take most of the time of a page; one test draws them."""

import pytest
import vl_convert


@pytest.fixture(autouse=True)
def plain_charts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "drawn" not in request.keywords:
        monkeypatch.setattr(
            vl_convert, "vegalite_to_svg", lambda _: '<svg width="1" height="1" viewBox="0 0 1 1"></svg>'
        )
