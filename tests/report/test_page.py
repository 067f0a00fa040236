"""The page: one file that needs nothing else, in which texts of files are texts, and figures those of the data set."""

from __future__ import annotations

import re
import struct
import zlib
from base64 import b64decode
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
from reported import HOSTILE, KINDS, LAYERS, RATES, SHORT, hostile, missing, portrait, study

from xbarsim.report.content import content_of
from xbarsim.report.page import page
from xbarsim.report.view import view_of
from xbarsim.study.importance import importance

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Tree(HTMLParser):
    """Elements of a page as (tag, attributes, text), and whether they are nested well."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.stack: list[int] = []
        self.feed(text)
        self.close()
        assert self.open == [], "elements are left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID:
            self.open.append(tag)
            self.stack.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        for index in self.stack:
            self.elements[index][2].append(data)

    def texts(self, tag: str, **attrs: str) -> list[str]:
        return [
            "".join(text)
            for name, found, text in self.elements
            if name == tag and all(value in (found.get(key.rstrip("_")) or "").split() for key, value in attrs.items())
        ]


def made(dataset: xr.Dataset, portraits: dict | None = None) -> str:
    view = view_of(dataset, portraits or {}, "study", "study.h5")
    return page(view, content_of(view))


@pytest.fixture(scope="module")
def whole() -> str:
    return made(study(), {"0.1 %, two-column": portrait(0.001), "10 %, differential": portrait(0.1, 1)})


def test_all_parts_are_there(whole: str) -> None:
    tree = Tree(whole)
    assert tree.texts("h1") == ["Failure rates under two mappings"]
    assert tree.texts("p", class_="question") == ["Which mapping bears more stuck cells?"]
    assert [text.strip() for text in tree.texts("h2")] == [
        "What came out",
        "All points",
        "What matters",
        "The chip",
        "Layer by layer",
        "Single chips at close range",
        "To repeat it",
    ]
    assert tree.texts("pre", class_="command") == ["xbarsim sweep study.toml --out study.h5 --workers 2"]
    assert "In the mean, less than 2 points of accuracy are lost:" in tree.texts("section", class_="answer")[0]
    lines = [attrs["d"] for tag, attrs, _ in tree.elements if tag == "path" and attrs.get("class") == "line"]
    assert len([line for line in lines if line != "M1 7H33"]) == len(KINDS), "beside the keys of the legend"
    everything = "".join(tree.texts("main"))
    for text in ("a" * 64, "b" * 64, "python 3.13.0", "16 equally spaced levels", "first 64 samples of"):
        assert text in everything
    for name in LAYERS:
        assert name in everything


def test_figures_are_those_of_the_data_set(whole: str) -> None:
    dataset, tree = study(), Tree(whole)
    rows = re.findall(r"<tr>(.*?)</tr>", whole, re.DOTALL)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]
    found = {tuple(row[:2]): row[2:] for row in cells if len(row) == 10}
    assert len(found) == len(RATES) * len(KINDS)
    for rate in RATES:
        for kind in KINDS:
            values = 100 * dataset["top-1"].sel(faults_rate=rate, mapping_kind=kind).values
            half = 2.0095752371 * values.std(ddof=1) / np.sqrt(50)  # Student's t for 49 degrees of freedom
            expected = [values.mean(), values.std(ddof=1), values.min(), values.max(), 92.5, 92.5 - values.mean()]
            row = found[f"{100 * rate:.3g} %", kind]
            assert row[0] == "50"
            # two decimals are shown
            assert [float(text) for text in (row[1], *row[3:])] == pytest.approx(expected, abs=0.00501)
            ends = [values.mean() - half, values.mean() + half]
            assert [float(text) for text in row[2].split(" to ")] == pytest.approx(ends, abs=0.00501)
            mark = f"failure rate: {100 * rate:.3g} %\nmapping: {kind}\naccuracy: {row[1]} % (95 % interval {row[2]})"
            assert any(text.startswith(mark) for text in tree.texts("title"))


def test_marks_stand_where_their_figures_are(whole: str) -> None:
    """Heights of marks are a straight line of the means that they are about."""
    marks = re.findall(
        r'class="mark s\d" x="([\d.]+)%" y="([\d.]+)%"[^>]*><title>failure rate: ([\d.]+) %\n.*\n.*: ([\d.]+) %', whole
    )
    assert len(marks) == len(RATES) * len(KINDS)
    x, y, rate, mean = np.array(marks, float).T
    for place, figure, digits in ((y, mean, 0.01), (x, np.log(rate), 0.01)):
        slope, start = np.polyfit(figure, place, 1)
        assert np.abs(slope * figure + start - place).max() < digits + 0.005 * abs(slope)


def test_bars_are_the_shares_of_the_variance(whole: str) -> None:
    found = importance(study())
    shares = {
        "failure rate": found.alone["faults_rate"],
        "mapping": found.alone["mapping_kind"],
        "failure rate and mapping together": found.pairs["faults_rate", "mapping_kind"],
        "chips of one point": found.chips,
    }
    bars = re.findall(r'<title>(.*)\n([\d.]+) %</title><rect class="bar" x="0" y="20%" width="([\d.]+)%"', whole)
    assert [name for name, _, _ in bars] == sorted(shares, key=lambda name: -shares[name])
    for name, text, width in bars:
        assert float(text) == pytest.approx(100 * shares[name], abs=0.0501)
        assert float(width) == pytest.approx(100 * shares[name], abs=0.00501)


def test_points_that_stand_for_all_are_spread_along_every_axis() -> None:
    axes = {"faults.rate": RATES, "mapping.kind": KINDS, "adc.bits": (4, 6, 8, 10)}
    view = view_of(study(axes, chips=2), {}, "study", "study.h5")
    assert view.some(6) == [(0, 0, 0), (0, 1, 0), (5, 0, 0), (5, 1, 0)]
    two = view_of(missing(study(chips=2), 0, 1), {}, "study", "study.h5")
    assert two.some(6) == [(0, 0), (2, 0), (2, 1), (5, 0), (5, 1)]


def test_portraits_are_called_as_their_points(whole: str) -> None:
    text = made(
        study(chips=2), {f"faults_rate = {RATES[1]}, mapping_kind = differential": portrait(), "other": portrait()}
    )
    summaries = Tree(text).texts("summary")
    assert "failure rate 0.251 %, differential, seed 0" in summaries
    assert "other, seed 0" in summaries


def test_nothing_is_loaded(whole: str) -> None:
    for text in (whole, made(hostile(), {HOSTILE: portrait()})):
        tree = Tree(text)
        for tag, attrs, _ in tree.elements:
            assert tag not in ("iframe", "object", "embed", "base", "form", "audio", "video", "foreignobject")
            for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset", "background"):
                value = attrs.get(name)
                assert value is None or value.startswith("#") or value.startswith("data:"), (tag, name, value)
            assert not any(name.startswith("on") for name in attrs)
            assert "style" not in attrs, "the policy lets no inline style pass"
        style = tree.texts("style")[0]
        assert "@import" not in style
        assert "url(" not in style
    assert "default-src 'none'" in whole


def test_hostile_texts_are_texts() -> None:
    text = made(hostile(), {HOSTILE: portrait()})
    tree = Tree(text)
    assert [tag for tag, _, _ in tree.elements].count("script") == 1
    assert all(attrs["src"].startswith("data:image/png;base64,") for tag, attrs, _ in tree.elements if tag == "img")
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "49" not in tree.texts("h1")[0], "templates of files are not run"
    everything = "".join(tree.texts("main"))
    # title, question, command, provenance, names of axes, values, layers, paths, chip, portrait
    assert everything.count(HOSTILE) > 60
    for tag in ("title", "h1", "h3", "dt", "dd", "td", "pre", "summary", "figcaption", "li"):
        assert any(HOSTILE in found for found in tree.texts(tag)), tag
    assert SHORT in tree.texts("th")
    assert not re.search("<u[^ls]", text)
    labels = [attrs["aria-label"] for _, attrs, _ in tree.elements if attrs.get("aria-label")]
    assert any(HOSTILE in str(label) for label in labels)


def test_invisible_characters_are_shown_and_endless_texts_end() -> None:
    found = study(chips=2, name="a\u202eb\u200bc\x00d", study="x" * 100_000)
    text = made(found)
    assert "<h1>a\ufffdb\ufffdc\ufffdd</h1>" in text
    assert "x" * 20_000 + " …" in text
    assert "x" * 20_001 not in text
    text.encode("utf-8")


def test_alternative_texts() -> None:
    tree = Tree(made(study(chips=3), {"one": portrait()}))
    for tag, attrs, _ in tree.elements:
        if tag == "img":
            assert "stuck on" in str(attrs["alt"])
        if tag == "svg" and "drawing" in str(attrs.get("class")):
            assert attrs.get("aria-label") or attrs.get("aria-hidden")


def test_pictures_show_the_array_cell_by_cell() -> None:
    one = portrait(0.2)
    source = next(
        re.finditer(r'src="data:image/png;base64,([^"]+)" width="12" height="25"', made(study(chips=2), {"": one}))
    )
    data = b64decode(source[1])
    chunks, at = {}, 8
    while at < len(data):
        size = struct.unpack(">I", data[at : at + 4])[0]
        chunks[data[at + 4 : at + 8]] = data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(data[at + 4 : at + 8 + size])
        at += 12 + size
    pixels = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(25, 13)[:, 1:]
    np.testing.assert_array_equal(pixels, one.faults[0, :25, :12] + 1)


def test_a_study_that_is_not_complete_says_so() -> None:
    text = made(missing(study(chips=3), 2, 1))
    assert "not complete" in text
    assert "1 of 12 points have no finished chip and are left out." in text
    assert "not complete" not in made(study(chips=3))


def test_large_studies_stay_small() -> None:
    axes = {
        "faults.rate": tuple(np.geomspace(1e-4, 0.1, 30)),
        "adc.bits": tuple(range(2, 12)),
        "device.levels": tuple(range(2, 12)),
    }
    text = made(study(axes, chips=4), {f"p{number}": portrait(0.3, number) for number in range(8)})
    assert len(text.encode()) < 3_000_000
    assert "of 3,000 points are shown" in text
    assert "panels are shown" not in text or "the first 24 of" in text


@pytest.mark.parametrize(
    "axes",
    [
        {},
        {"faults.rate": (0.01,)},
        {"mapping.kind": KINDS},
        {"adc.bits": (4, 6)},
        {"a.b": tuple("abcdefgh"), "c.d": tuple("ijklmnop")},
    ],
)
@pytest.mark.parametrize("chips", [1, 3])
def test_every_kind_of_study_has_a_page(axes: dict, chips: int) -> None:
    Tree(made(study(axes, chips=chips, metrics=("top-1", "top-5", "mse"))))


def test_figures_without_a_number_are_dashes() -> None:
    dataset = study({"mapping.kind": KINDS}, chips=2, metrics=("mse",))
    dataset["mse"].values[:] = [[np.inf, np.inf], [np.nan, 1.0]]
    dataset["layer_signal_to_error_db"].values[:] = np.inf
    text = made(dataset)
    shown = re.sub(r"<(style|script)>.*?</\1>", "", text, flags=re.DOTALL)
    assert not re.search(r"[^a-z]nan[^a-z]", shown.lower())
    assert "<td>∞</td>" in text
    assert "<td>exact</td>" in text
