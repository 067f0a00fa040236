"""Netlists: their text is the circuit, and ngspice finds in it what we find."""

from __future__ import annotations

import re
import shutil
from collections import Counter

import numpy as np
import oracle
import pytest
import test_docs

from xbarsim import iv, netlist
from xbarsim.bias import FLOATING, Bias
from xbarsim.circuit import Crossbar
from xbarsim.errors import CircuitError, DataError
from xbarsim.wires import Wires

needs_ngspice = pytest.mark.skipif(
    shutil.which("ngspice") is None, reason="ngspice is not installed: apt-get install ngspice"
)
LAWS = {
    "series": iv.Series(r_series=5e3),
    "sinh": iv.Sinh(v0=0.27183),
    "selector": iv.Selector(i0=1e-9 / 3.0, v0=0.05),
    "transistor": iv.Transistor(v_gate=1.8, v_threshold=0.45, k=5e-4),
    "table": iv.Table(
        g=(5e-6, 2e-5, 8e-5),
        v=tuple(VOLTS := [-1.5, -0.9, -0.4, -0.15, 0.0, 0.2, 0.37, 0.66, 1.0, 1.4]),
        i=tuple(tuple(g * (v + 0.6 * v**3 + 0.1 * v * abs(v)) for v in VOLTS) for g in (5e-6, 2e-5, 8e-5)),
    ),
}
WIRES = Wires(r_wordline=2.0, r_bitline=3.0, r_driver=100.0, r_sense=50.0)


def cells(rows, cols, low=1e4, high=1e6, share_open=0.05, seed=0):
    rng = np.random.default_rng([seed, rows, cols])
    g = 1.0 / rng.uniform(low, high, (rows, cols))
    g[rng.random(g.shape) < share_open] = 0.0
    return g


def inputs(rows, seed=1):
    return np.random.default_rng([seed, rows]).uniform(0.0, 1.0, rows)


def elements(text):
    """Names and fields of the lines that are elements."""
    body = text.split("\n.options")[0].splitlines()[1:]
    found = {line.split()[0]: line.split()[1:] for line in body if not line.startswith((".", "+"))}
    assert len(found) == len([line for line in body if not line.startswith((".", "+"))]), "names repeat"
    return found


def kinds(text):
    return Counter(re.match(r"[A-Za-z]+", name)[0] for name in elements(text))


# -- the text ----------------------------------------------------------------------------------------------------------


def test_every_element_of_the_circuit_is_there_once():
    g = cells(4, 6)
    assert kinds(netlist.deck(g, WIRES, Bias.read(inputs(4), 6, WIRES))) == {
        "Vleft": 4,
        "Rleft": 4,
        "Rw": 4 * 5,
        "Rcell": np.count_nonzero(g),
        "Rb": 3 * 6,
        "Rbottom": 6,
        "Vbottom": 6,
    }


def test_values_have_all_their_digits():
    g = cells(3, 2, share_open=0.0)
    v = inputs(3)
    wires = Wires(r_wordline=1.0 / 3.0, r_bitline=2e-7, r_driver=1e5 / 7.0, r_sense=3.0)
    found = elements(netlist.deck(g, wires, Bias.read(v, 2, wires)))
    for i in range(3):
        assert float(found[f"Vleft_{i}"][-1]) == v[i]
        assert float(found[f"Rleft_{i}"][-1]) == wires.r_driver
        assert float(found[f"Rw_{i}_0"][-1]) == wires.r_wordline
        for j in range(2):
            assert found[f"Rcell_{i}_{j}"][:2] == [f"w_{i}_{j}", f"b_{i}_{j}"]
            assert float(found[f"Rcell_{i}_{j}"][-1]) == 1.0 / g[i, j]
    assert float(found["Rb_1_1"][-1]) == wires.r_bitline


def test_open_ends_and_open_cells_are_absent():
    g = cells(3, 3, share_open=0.0)
    g[1, 2] = 0.0
    left, right = np.array([0.5, FLOATING, 0.1]), np.array([FLOATING, FLOATING, 0.2])
    bias = Bias(left, right, np.full(3, FLOATING), np.array([0.0, FLOATING, 0.3]))
    found = elements(netlist.deck(g, WIRES, bias))
    sources = {name: float(fields[-1]) for name, fields in found.items() if name[0] == "V"}
    assert sources == {"Vleft_0": 0.5, "Vleft_2": 0.1, "Vright_2": 0.2, "Vbottom_0": 0.0, "Vbottom_2": 0.3}
    assert "Rcell_1_2" not in found
    assert "Rcell_1_1" in found


def test_lines_without_resistance_are_one_node():
    wires = Wires(r_bitline=3.0)
    text = netlist.deck(cells(4, 5, share_open=0.0), wires, Bias.read(inputs(4), 5, wires))
    assert kinds(text) == {"Vleft": 4, "Rcell": 20, "Rb": 15, "Vbottom": 5}
    found = elements(text)
    assert all(found[f"Rcell_2_{j}"][0] == "w_2_0" for j in range(5))
    assert found["Vleft_2"][:2] == ["w_2_0", "0"]
    assert found["Vbottom_1"][:2] == ["b_3_1", "0"]


def test_ends_with_nothing_between_them_share_the_current():
    wires = Wires(drive="both", sense="both", r_wordline=1.0)
    found = elements(netlist.deck(cells(2, 3, share_open=0.0), wires, Bias.read(inputs(2), 3, wires)))
    assert {name for name in found if name[0] == "F"} == {f"Fbottom_{j}" for j in range(3)}
    assert found["Vbottom_1"] == ["b_0_1", "s_1", "0.0"]
    assert found["Fbottom_1"] == ["s_1", "0", "Vtop_1", "1"]
    assert found["Vright_1"][:2] == ["w_1_2", "0"]


def test_numbers_in_expressions_keep_their_digits():
    """ngspice rounds each number of an expression to 11 digits, so that longer ones are sums."""
    g = cells(3, 3, share_open=0.0)
    found = elements(netlist.deck(g, WIRES, Bias.read(inputs(3), 3, WIRES), iv.Sinh(v0=1.0 / 3.0)))
    for i in range(3):
        for j in range(3):
            w, b, expression = found[f"Bcell_{i}_{j}"]
            parts = re.fullmatch(rf"I=\((.+)\)\*sinh\(v\({w},{b}\)/\((.+)\)\)", expression).groups()
            for part, value in zip(parts, (g[i, j] * (1.0 / 3.0), 1.0 / 3.0), strict=True):
                head, tail = re.fullmatch(r"(.+\d)([+-]\d.+)", part).groups()
                assert float(head) + float(tail) == value
                assert len(head.split("e")[0].replace(".", "").lstrip("0")) <= 11
                assert len(tail.split("e")[0].replace(".", "").lstrip("+-0")) <= 11


def test_tables_stand_once_in_the_deck():
    g = np.array([[1e-6, 5e-6, 1.3e-5, 8e-5, 2e-4]])
    text = netlist.deck(g, WIRES, Bias.read([0.1], 5, WIRES), LAWS["table"])
    assert text.count(".func state") == 3
    used = [re.findall(r"\*state(\d)", line) for line in text.splitlines() if line.startswith("Bcell")]
    assert used == [["0"], ["0"], ["0", "1"], ["2"], ["2"]]


def test_the_title_is_one_comment():
    text = netlist.deck([[1e-4]], WIRES, Bias.read([0.1], 1, WIRES), title="two\nlines")
    assert text.splitlines()[0] == "* two lines"


def test_a_netlist_is_for_one_set_of_voltages():
    with pytest.raises(DataError, match=r"bias has a batch of 3; a netlist is for one set of voltages"):
        netlist.deck(cells(2, 2), WIRES, Bias.read(np.zeros((2, 3)), 2, WIRES))
    with pytest.raises(DataError, match="shape"):
        netlist.deck(cells(2, 2), WIRES, Bias.read(np.zeros(3), 2, WIRES))
    wires = Wires(drive="both")
    with pytest.raises(CircuitError, match="short circuit"):
        netlist.deck([[1e-4]], wires, Bias([0.1], [0.2], [FLOATING], [0.0]))


def test_output_is_read_by_name():
    text = (
        "Circuit: * an array\nb_0_0 = 1.5e-01\nb_0_1 = 2.5e-01\nl_0 = 1.0e+00\nw_0_0 = 9.0e-01\n"
        "vleft_0#branch = -4.0e-03\nvbottom_1#branch = 2.5e-03\nvbottom_0#branch = 1.5e-03\narray 1 2\n"
    )
    read = netlist.read_output(text)
    np.testing.assert_array_equal(read.i_in, [4e-3])
    np.testing.assert_array_equal(read.i_out, [1.5e-3, 2.5e-3])
    np.testing.assert_array_equal(read.i_right, [0.0])
    np.testing.assert_array_equal(read.v_wordline, [[0.9, 0.9]])
    np.testing.assert_array_equal(read.v_bitline, [[0.15, 0.25]])
    assert netlist.read_output(re.sub(r"^[wb]_.*\n", "", text, flags=re.MULTILINE)).v_wordline is None


@pytest.mark.parametrize("text", ["", "array 1 1\n", "vleft_0#branch = -4.0e-03\n"])
def test_output_without_an_operating_point_is_an_error(text):
    with pytest.raises(CircuitError, match="no operating point"):
        netlist.read_output(text)


def test_without_ngspice_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CircuitError, match=r"ngspice is not installed.*apt-get install ngspice"):
        netlist.run_ngspice("* nothing\n")


# -- the answers -------------------------------------------------------------------------------------------------------


def assert_close(found, expected, volts=1e-10):
    """Each kind of quantity as a fraction of its largest value."""
    # ngspice takes a driver's current from a difference of voltages that are nearly the same
    for name, tolerance in (("i_in", 1e-9), ("i_out", 1e-10), ("v_wordline", volts), ("v_bitline", volts)):
        ours, theirs = getattr(expected, name), getattr(found, name)
        largest = np.abs(ours if name[0] == "i" else expected.v_wordline).max()
        assert np.abs(ours - theirs).max() <= tolerance * largest, name


@needs_ngspice
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize(("r", "low", "high"), [(0.1, 1e4, 1e6), (20.0, 1e3, 4e4)])
def test_linear_arrays_agree_with_ngspice(size, r, low, high):
    wires = Wires(r_wordline=r, r_bitline=1.5 * r, r_driver=100.0, r_sense=50.0)
    g, bias = cells(size, size, low, high), Bias.read(inputs(size), size, wires)
    found = netlist.run_ngspice(netlist.deck(g, wires, bias, nodes=True))
    assert_close(found, Crossbar(g, wires).solve(bias))
    exact = oracle.nodal(g, wires, bias)
    assert np.abs(found.i_bottom - exact.i_bottom).max() <= 1e-11 * np.abs(exact.i_bottom).max()


@needs_ngspice
@pytest.mark.parametrize(("kind", "size"), [*((kind, 32) for kind in LAWS), ("sinh", 64), ("table", 64)])
def test_nonlinear_arrays_agree_with_ngspice(kind, size):
    g, v = cells(size, size), np.random.default_rng(size).uniform(-1.0, 1.0, size)
    bias = Bias.read(v, size, WIRES)
    found = netlist.run_ngspice(netlist.deck(g, WIRES, bias, LAWS[kind], nodes=True))
    assert_close(found, Crossbar(g, WIRES, LAWS[kind]).solve(bias))


@needs_ngspice
@pytest.mark.parametrize("kind", LAWS)
def test_nonlinear_cells_on_ideal_wires_agree_with_ngspice(kind):
    """No wires and no solver: the law alone against the elements that stand for it, over all voltages and states."""
    v = np.linspace(-2.0, 2.0, 21) + 0.01
    g = np.broadcast_to(np.array([1e-6, 5e-6, 1.3e-5, 1.0 / 3e4, 8e-5, 2e-4]), (v.size, 6))
    bias = Bias.read(v, 6, Wires())
    found = netlist.run_ngspice(netlist.deck(g, Wires(), bias, LAWS[kind]))
    expected = LAWS[kind].current(g, v[:, None])
    for ours, theirs in ((expected.sum(axis=0), found.i_out), (expected.sum(axis=1), found.i_in)):
        assert np.abs(ours - theirs).max() <= 1e-12 * np.abs(ours).max()


@needs_ngspice
@pytest.mark.parametrize("kind", LAWS)
@pytest.mark.parametrize("scheme", ["third", "floating"])
def test_nonlinear_read_schemes_agree_with_ngspice(kind, scheme):
    g = cells(12, 9, share_open=0.0)
    bias = Bias.select(3, 7, 0.9, 12, 9, scheme, WIRES)
    found = netlist.run_ngspice(netlist.deck(g, WIRES, bias, LAWS[kind], nodes=True))
    # a line that floats behind selectors of 150 Mohm, in the admittances of wires of 2 ohm: 8 digits are lost
    assert_close(found, Crossbar(g, WIRES, LAWS[kind]).solve(bias), volts=1e-8 if scheme == "floating" else 1e-10)


@needs_ngspice
@pytest.mark.parametrize("drive", ["left", "right", "both"])
@pytest.mark.parametrize("sense", ["bottom", "top", "both"])
@pytest.mark.parametrize(
    "zeros", ["", "r_wordline", "r_bitline", "r_driver r_sense", "r_wordline r_driver", "r_bitline r_sense"]
)
def test_ends_and_zero_resistances_agree_with_ngspice(drive, sense, zeros):
    wires = WIRES.model_copy(update={"drive": drive, "sense": sense} | dict.fromkeys(zeros.split(), 0.0))
    g, bias = cells(7, 5), Bias.read(inputs(7), 5, wires)
    found = netlist.run_ngspice(netlist.deck(g, wires, bias, nodes=True))
    expected = Crossbar(g, wires).solve(bias)
    assert_close(found, expected)
    for end in ("i_left", "i_right", "i_top", "i_bottom"):
        np.testing.assert_allclose(
            getattr(found, end), getattr(expected, end), rtol=0, atol=1e-9 * expected.i_out.max()
        )


@needs_ngspice
@pytest.mark.parametrize("scheme", ["half", "third", "grounded", "floating"])
def test_read_schemes_agree_with_ngspice(scheme):
    g = cells(16, 12, share_open=0.0)
    bias = Bias.select(3, 7, 0.8, 16, 12, scheme, WIRES)
    found = netlist.run_ngspice(netlist.deck(g, WIRES, bias, nodes=True))
    solution = Crossbar(g, WIRES).solve(bias)
    assert_close(found, solution)
    for name in ("i_left", "i_right", "i_top", "i_bottom"):
        np.testing.assert_allclose(getattr(found, name), getattr(solution, name), rtol=0, atol=1e-13)


@needs_ngspice
def test_what_ngspice_says_of_a_failure_is_the_error():
    with pytest.raises(CircuitError, match=r"ngspice found no operating point: .*(?i:error)"):
        netlist.run_ngspice("* no circuit\n.options reltol=1\nXx a b nosuch\n.control\nop\n.endc\n.end\n")


@needs_ngspice
def test_ngspice_is_stopped_after_the_timeout():
    with pytest.raises(CircuitError, match=r"within 0\.01 s"):
        netlist.run_ngspice(netlist.deck(cells(64, 64), WIRES, Bias.read(inputs(64), 64, WIRES)), timeout=0.01)


@needs_ngspice
def test_the_guide_shows_what_ngspice_prints(tmp_path, monkeypatch):
    """The commands of other pages need no ngspice, so that its output is checked here."""
    monkeypatch.setitem(test_docs.PROGRAMS, "ngspice", ["ngspice"])
    page = test_docs.ROOT / "docs" / "howto" / "spice.md"
    assert page in test_docs.WITH_COMMANDS
    test_docs.test_commands_print_what_the_page_says(page, tmp_path)


@needs_ngspice
def test_the_guides_comparison_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    page = (test_docs.ROOT / "docs" / "howto" / "spice.md").read_text(encoding="utf-8")
    parts = re.findall(r"^>>> (.*)$", page, re.MULTILINE)[:-1]
    (script,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    exec("\n".join([*parts, script]), {})
    current, voltage = map(float, capsys.readouterr().out.split())
    assert current < 1e-16
    assert voltage < 1e-12
