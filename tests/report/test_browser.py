"""The page in a browser: it asks for nothing, fits a phone, and shows values to mouse, finger and keyboard."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from reported import HOSTILE, KINDS, RATES, hostile, portrait, study

from xbarsim import Study
from xbarsim.report import read
from xbarsim.report.content import content_of
from xbarsim.report.page import page
from xbarsim.report.view import view_of

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if importlib.util.find_spec("playwright") is None:
    pytest.skip("playwright is not installed: pip install playwright", allow_module_level=True)
if CHROMIUM is None:
    pytest.skip("Chromium is not installed: apt-get install chromium", allow_module_level=True)

CHIPS = int(os.environ.get("XBARSIM_CHIPS", "3"))
"""Chips of each point of the study whose report is opened."""

PAGES = ["study", "many chips", "panels", "strips", "hostile"]

PHONE = {"width": 360, "height": 740}
DESK = {"width": 1200, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


def swept() -> Study:
    """Of six failure rates and two mappings, on LeNet-5 and 1,000 images."""
    return Study(
        name="Failure rates under two mappings",
        model="lenet5",
        data="fashion-mnist-1000",
        calibration="fashion-mnist-calibration",
        chip="ideal",
        set={"device.levels": 64, "dac.bits": 8, "adc.bits": 8, "faults.mix": "yuan2021"},
        axes=[{"field": "faults.rate", "values": RATES}, {"field": "mapping.kind", "values": KINDS}],
        metrics=["top-1"],
        chips=CHIPS,
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    many = {"faults.rate": RATES, "mapping.kind": ("a", "b"), "adc.bits": (4, 6, 8, 10)}
    swept().run(folder / "swept.h5", workers=1)
    views = {
        "study": read(folder / "swept.h5"),
        "many chips": view_of(study(), {f"chip {n}": portrait(0.05 * n, n) for n in range(1, 3)}, "study", "study.h5"),
        "panels": view_of(study(many, chips=3, metrics=("top-1", "mse")), {}, "study", "panels.h5"),
        "strips": view_of(study({"mapping.kind": ("a", "b")}, chips=3), {}, "study", "strips.h5"),
        "hostile": view_of(hostile(), {HOSTILE: portrait()}, "study", "hostile.h5"),
    }
    for name, view in views.items():
        (folder / f"{name}.html").write_text(page(view, content_of(view)), "utf-8")
    return {name: folder / f"{name}.html" for name in views}


class Opened:
    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.context = browser.new_context(offline=True, **options)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.messages: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.messages.append(dialog.message), dialog.dismiss()))
        self.page.goto(path.as_uri())
        self.page.wait_for_load_state("networkidle")

    def show(self, element: Any) -> None:
        """Scroll to an element, and let the page take note of it."""
        element.scroll_into_view_if_needed()
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_leaves_the_page_and_nothing_errs(browser: Any, pages: dict[str, Path], name: str, scheme: str) -> None:
    with Opened(browser, pages[name], viewport=DESK, color_scheme=scheme) as opened:
        for part in opened.page.query_selector_all("summary"):
            part.click()
        opened.page.mouse.wheel(0, 4000)
        assert [url for url in opened.requests if not url.startswith("data:")] == [pages[name].as_uri()]
        assert opened.messages == []
        assert pages[name].stat().st_size < 3_000_000


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_needs_no_horizontal_scroll(browser: Any, pages: dict[str, Path], name: str) -> None:
    with Opened(browser, pages[name], viewport=PHONE, has_touch=True, is_mobile=True) as opened:
        opened.page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        width = opened.page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]")
        assert max(width) == 360
        # letters of charts keep their size
        sizes = opened.page.evaluate(
            "[...document.querySelectorAll('.tick')].filter(t => t.getClientRects().length)"
            ".map(t => parseFloat(getComputedStyle(t).fontSize))"
        )
        assert min(sizes, default=12) >= 12


def test_ticks_do_not_touch_each_other_on_a_phone(browser: Any, pages: dict[str, Path]) -> None:
    with Opened(browser, pages["study"], viewport=PHONE) as opened:
        boxes = opened.page.evaluate(
            "[...document.querySelectorAll('.chart .drawing')].map(d => [...d.querySelectorAll('.tick.x')]"
            ".map(t => t.getBoundingClientRect()).map(b => [b.left, b.right]))"
        )
        assert any(len(line) >= 4 for line in boxes)
        for line in boxes:
            for (_, right), (left, _) in pairwise(line):
                assert left > right + 3


def test_curves_are_drawn(browser: Any, pages: dict[str, Path]) -> None:
    with Opened(browser, pages["study"], viewport=DESK) as opened:
        chart = opened.page.locator("#figures .chart").first
        lines = chart.locator("svg.stretched path.line")
        assert lines.count() == 2
        for number in range(2):
            box = lines.nth(number).bounding_box()
            assert box["width"] > 700
            assert box["height"] > 100
        assert chart.locator(".mark").count() == 2 * len(RATES)
        strokes = {
            lines.nth(n).evaluate("e => getComputedStyle(e).stroke + getComputedStyle(e).strokeDasharray")
            for n in (0, 1)
        }
        assert len(strokes) == 2


def test_values_are_shown_at_the_pointer(browser: Any, pages: dict[str, Path]) -> None:
    with Opened(browser, pages["study"], viewport=DESK) as opened:
        tip = opened.page.locator("#tip")
        assert not tip.is_visible()
        opened.show(opened.page.locator("#figures svg.drawing").first)
        marks = opened.page.locator("#figures .mark .dot")
        texts = []
        for number in range(marks.count()):
            box = marks.nth(number).bounding_box()
            opened.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            assert tip.is_visible()
            texts.append(tip.inner_text())
            shown = tip.bounding_box()
            assert shown["x"] >= 0
            assert shown["x"] + shown["width"] <= DESK["width"]
        assert len(set(texts)) == 2 * len(RATES)
        for text in texts:
            assert re.search(
                r"^failure rate: [\d.]+ %\nmapping: [\w-]+\naccuracy: [\d.]+ % \(95 % interval [\d.]+ to [\d.]+\)\n",
                text,
            )
            assert f"{CHIPS} chips: " in text
        opened.page.mouse.move(5, 5)
        assert not tip.is_visible()


def test_values_are_shown_to_the_keyboard_and_to_a_finger(browser: Any, pages: dict[str, Path]) -> None:
    with Opened(browser, pages["study"], viewport=PHONE, has_touch=True, is_mobile=True) as opened:
        tip, drawing = opened.page.locator("#tip"), opened.page.locator("#figures svg.drawing").first
        opened.show(drawing)
        box = opened.page.locator("#figures .mark .dot").nth(3).bounding_box()
        opened.page.touchscreen.tap(box["x"] + 4, box["y"] + 4)
        assert tip.is_visible()
        assert tip.bounding_box()["x"] + tip.bounding_box()["width"] <= 360
    with Opened(browser, pages["study"], viewport=DESK) as opened:
        tip, drawing = opened.page.locator("#tip"), opened.page.locator("#figures svg.drawing").first
        drawing.focus()
        seen = []
        for _ in range(3):
            opened.page.keyboard.press("ArrowRight")
            assert tip.is_visible()
            seen.append(tip.inner_text())
        assert len(set(seen)) == 3
        opened.page.keyboard.press("ArrowLeft")
        assert tip.inner_text() == seen[1]
        opened.page.keyboard.press("Escape")
        assert not tip.is_visible()


def test_readable_without_a_script_and_in_print(browser: Any, pages: dict[str, Path]) -> None:
    with Opened(browser, pages["study"], viewport=DESK, java_script_enabled=False) as opened:
        assert opened.messages == []
        assert opened.page.locator("#figures svg.stretched path.line").count() == 2
        assert opened.page.locator("#figures .mark title").count() == 2 * len(RATES)
    with Opened(browser, pages["study"], viewport=DESK, color_scheme="dark") as opened:
        background = "getComputedStyle(document.body).backgroundColor"
        dark = opened.page.evaluate(background)
        opened.page.emulate_media(media="print")
        assert opened.page.evaluate(background) == "rgb(255, 255, 255)" != dark
