"""The page in a real browser, without a window: nothing fails, nothing is fetched, everything can be reached."""

import json
import pathlib
import shutil

import pytest
from report_runs import make_evaluation, make_run, prediction

from jax_prompts.report import theme
from jax_prompts.report.report import make_report

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
EVIL = "</script><script>window.ran = 1</script><img src=x onerror='window.ran = 1'>"


@pytest.fixture(scope="module")
def browser():
    """Chromium, headless."""
    if not pathlib.Path(CHROMIUM).exists():
        pytest.skip("chromium is not installed: apt-get install chromium")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A page with markup wherever a user's text may stand."""
    root = tmp_path_factory.mktemp("report") / "<img src=x onerror='window.ran = 1'>"
    labels = (EVIL, "no")
    rows = [
        prediction(n, labels[n % 2], labels[n % 3 == 0], labels, inputs=f"{EVIL} number {n}")
        for n in range(120)
    ]
    make_run(
        root / "run <b>", scores=(80.0, 90.0), predictions=rows, prompts=True, recorded=True, task="<b>rte"
    )
    for number, rate in enumerate(("0.1", "0.3")):
        make_run(root / f"rate{number}", scores=(70.0 + number,), settings={"LEARNING_RATE": rate})
    ensemble = [{**row, "agreement": (0.4, 0.6, 1.0)[row["index"] % 3]} for row in rows]
    make_evaluation(root / "evaluation", rows, ensemble)
    for seed in (0, 1):
        make_run(root / "suite" / "cells" / f"a.b.seed{seed}", settings={"RANDOM_SEED": str(seed)})
    entry = {"mean": 90.0, "deviation": 1.0, "complete": True, "published": 91.0, "difference": -1.0}
    (root / "suite" / "table.json").write_text(
        json.dumps({"table": [{"row": EVIL, "columns": {EVIL: entry}}]})
    )
    output = root.parent / "report.html"
    make_report([str(root)], str(output))
    return output


@pytest.fixture
def opened(browser, file):
    """`opened(width, scheme)`: the drawn page, and what it said and asked for."""
    contexts = []

    def open_page(width=1440, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page, heard = context.new_page(), []
        page.on("console", lambda message: heard.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on(
            "request", lambda request: request.url == file.as_uri() or heard.append(f"asked: {request.url}")
        )
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-drawn=true]", timeout=120_000)
        return page, heard

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_it_draws_everything_and_asks_for_nothing(opened, width, scheme):
    page, heard = opened(width, scheme)
    assert heard == []
    assert page.evaluate("window.ran") is None
    assert page.evaluate("document.documentElement.scrollWidth") == width
    figures = page.locator("figure")
    assert figures.count() >= 8
    for number in range(figures.count()):
        picture = figures.nth(number).locator(".chart [role=img]")
        assert picture.locator("svg, canvas").count() == 1
        assert picture.get_attribute("aria-label")
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    assert page.locator("h1").count() == 1 and page.title()


def test_markup_in_labels_is_text(opened):
    page, _ = opened()
    assert page.locator("#rows td[data-head=Input]").first.inner_text().startswith(EVIL)
    assert page.locator("main img, main b").count() == 0
    assert page.evaluate("[...document.scripts].length") == 5


def test_filters_leave_what_they_say(opened):
    page, heard = opened()
    count = lambda: int(page.locator("#count").inner_text().split(" of ")[1].split()[0].replace(",", ""))  # noqa: E731
    assert count() == 5 * 120
    assert page.locator("#rows tbody tr").count() == 50
    assert page.locator("#rows tbody .wrong").count() == 50  # which come first
    page.select_option("#filter-run", "evaluation")
    assert count() == 360
    page.select_option("#filter-agreement", "half")
    assert count() == 40
    page.select_option("#filter-agreement", "split")
    assert count() == 80
    page.select_option("#filter-agreement", "")
    page.select_option("#filter-right", "1")
    assert count() == 180
    page.select_option("#filter-label", "no")
    assert count() == 60
    assert set(page.locator("#rows td[data-head=Target]").all_inner_texts()) == {"no"}
    page.fill("#filter-text", "NUMBER 15")
    playwright.expect(page.locator("#count")).to_contain_text("of 3 ")
    page.fill("#filter-text", "nowhere to be found")
    playwright.expect(page.locator("#count")).to_contain_text("0–0 of 0")
    assert heard == []


def test_pages_turn(opened):
    page, _ = opened()
    first = page.locator("#rows tbody tr").first.inner_text()
    assert page.locator("#previous").is_disabled()
    page.click("#next")
    assert page.locator("#page").inner_text() == "Page 2 of 12"
    assert page.locator("#rows tbody tr").first.inner_text() != first
    page.click("#previous")
    assert page.locator("#rows tbody tr").first.inner_text() == first


def test_a_figure_shows_what_is_chosen(opened):
    page, heard = opened()
    figure = page.locator("#figure-loss")
    figure.locator("label", has_text="of").locator("select").select_option("<b>rte")
    before = figure.locator(".chart [role=img]").get_attribute("aria-label")
    figure.locator("label", has_text="against").locator("select").select_option("seconds of tuning")
    playwright.expect(figure.locator(".chart [role=img]")).not_to_have_attribute("aria-label", before)
    assert "seconds of tuning" in figure.locator(".chart [role=img]").get_attribute("aria-label")
    figure.locator("details.data > summary").click()
    playwright.expect(figure.locator("details.data td").first).to_be_visible()  # an event fills it
    assert heard == []


def test_the_keyboard_reaches_every_control(opened):
    page, _ = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    assert page.locator(".skip").bounding_box()["x"] >= 0
    reached = set()
    for _ in range(200):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        if "filter-text" in reached:
            break
    assert {"theme", "A", "SELECT", "SUMMARY", "DIV", "filter-run", "filter-right", "filter-text"} <= reached
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_the_other_colours_can_be_chosen(opened):
    page, heard = opened()
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.locator("#theme").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate(ground) != light
    words = page.locator("#figure-loss .chart [role=img] svg text").first
    playwright.expect(words).to_have_attribute("fill", theme.config(dark=True)["axis"]["labelColor"])
    assert heard == []


def test_every_control_has_a_name(opened):
    page, _ = opened()
    unnamed = page.evaluate("""
        [...document.querySelectorAll("button, select, input, summary, [role=region], section, figure, nav")]
          .filter((element) => !(element.textContent.trim() || element.getAttribute("aria-label")
            || element.getAttribute("aria-labelledby") || element.closest("label")))
          .map((element) => element.outerHTML)""")
    assert unnamed == []
    assert page.locator("table").count() == page.locator("table caption").count()
