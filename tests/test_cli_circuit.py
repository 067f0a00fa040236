"""The commands on single arrays: what users type, and what they get when it is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from commandline import assert_one_line_error

from xbarsim import Bias, Crossbar, Wires
from xbarsim.iv import Sinh

G = np.random.default_rng(0).uniform(1e-6, 1e-4, (12, 9))
V = np.linspace(0.1, 0.3, 12)
WIRES = "r_wordline=2,r_bitline=3,r_driver=100"
LINES = Wires(r_wordline=2.0, r_bitline=3.0, r_driver=100.0)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    np.savez(tmp_path / "G.npz", g=G)
    np.savez(tmp_path / "V.npz", v=V)
    np.savez(tmp_path / "batch.npz", v=np.column_stack([V, 2 * V]))
    bias = Bias.select(2, 3, 0.4, 12, 9, "floating")
    np.savez(tmp_path / "bias.npz", left=bias.left, right=bias.right, top=bias.top, bottom=bias.bottom)
    nothing = np.full(12, np.nan)
    np.savez(tmp_path / "open.npz", left=nothing, right=nothing, top=nothing[:9], bottom=nothing[:9])
    np.savez(tmp_path / "short.npz", v=V[:5])
    np.savez(tmp_path / "nan.npz", v=V * np.nan)
    np.savez(tmp_path / "edges.npz", left=V, right=V)
    np.savez(tmp_path / "negative.npz", g=-G)
    np.savez(tmp_path / "twice.npz", v=V, left=V)
    (tmp_path / "broken.npz").write_bytes((tmp_path / "G.npz").read_bytes()[:100])
    (tmp_path / "taken.h5").write_bytes(b"precious")
    return tmp_path


def test_solve_prints_writes_and_draws(xbarsim: Any, files: Path) -> None:
    result = xbarsim("solve", "G.npz", "--v", "V.npz", "--wires", WIRES, "--out", "sol.h5", "--plot", "maps.png")
    assert result.code == 0, result.err
    expected = Crossbar(G, LINES).solve(V)
    assert "array  12 x 9, cells linear" in result.out
    assert "bitline current [uA]" in result.out
    assert f"{1e6 * expected.i_out.max():.6g}" in result.out
    with h5py.File(files / "sol.h5") as file:
        assert file.attrs["format"] == "xbarsim-solution-1"
        assert json.loads(file.attrs["wires"])["r_driver"] == 100.0
        np.testing.assert_array_equal(file["g"][()], G)
        np.testing.assert_array_equal(file["left"][()], V)
        np.testing.assert_array_equal(file["i_cell"][()], expected.i_cell)
        np.testing.assert_array_equal(file["i_out"][()], expected.i_out)
        assert {name: item.attrs["units"] for name, item in file.items()}["power"] == "W"
    assert (files / "maps.png").read_bytes().startswith(b"\x89PNG")


def test_solve_for_programs(xbarsim: Any, files: Path) -> None:
    result = xbarsim("solve", "G.npz", "--v", "batch.npz", "--wires", "r_wordline=2", "--wires", "sense=top", "--json")
    found = json.loads(result.out)
    expected = Crossbar(G, Wires(r_wordline=2.0, sense="top")).solve(np.column_stack([V, 2 * V]))
    np.testing.assert_array_equal(found["i_out"], expected.i_out)
    assert len(found["power"]) == 2


def test_solve_any_bias_and_any_law(xbarsim: Any, files: Path) -> None:
    result = xbarsim("solve", "G.npz", "--v", "bias.npz", "--iv", "kind=sinh,v0=0.25", "--json", "--plot", "m.svg")
    assert result.code == 0, result.err
    expected = Crossbar(G, iv=Sinh(v0=0.25)).solve(Bias.select(2, 3, 0.4, 12, 9, "floating"))
    np.testing.assert_array_equal(json.loads(result.out)["i_out"], expected.i_out)


def test_netlist_is_the_crossbars(xbarsim: Any, files: Path) -> None:
    result = xbarsim("netlist", "G.npz", "--v", "V.npz", "--wires", WIRES)
    assert result.code == 0, result.err
    assert result.out == Crossbar(G, LINES).netlist(V)
    assert xbarsim("netlist", "G.npz", "--v", "V.npz", "--wires", WIRES, "--out", "deck.cir").code == 0
    assert (files / "deck.cir").read_text() == result.out


@pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed: apt-get install ngspice")
@pytest.mark.parametrize("law", [[], ["--iv", "kind=sinh,v0=0.25"]])
def test_netlist_compares_with_ngspice(xbarsim: Any, files: Path, law: list[str]) -> None:
    result = xbarsim("netlist", "G.npz", "--v", "V.npz", "--wires", WIRES, "--compare", *law)
    assert result.code == 0, result.err
    assert float(result.out.split("ngspice ")[1].split()[0]) < 1e-9


@pytest.mark.parametrize("command", ["solve", "netlist"])
@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["none.npz", "--v", "V.npz"], ["none.npz", "No such file"]),
        (["broken.npz", "--v", "V.npz"], ["broken.npz", "not an NPZ file, or damaged"]),
        (["V.npz", "--v", "V.npz"], ["V.npz", "holds no array 'g'", "found 'v'"]),
        (["negative.npz", "--v", "V.npz"], ["negative.npz", "conductances are finite and 0 or more"]),
        (["G.npz", "--v", "G.npz"], ["G.npz", "neither 'v' nor 'left'"]),
        (["G.npz", "--v", "short.npz"], ["short.npz", "(5, 9)", "(12, 9)"]),
        (["G.npz", "--v", "nan.npz"], ["nan.npz", "v holds NaN"]),
        (["G.npz", "--v", "edges.npz"], ["edges.npz", "neither 'v' nor"]),
        (["G.npz", "--v", "open.npz"], ["wordline 0 has no defined voltage"]),
        (["G.npz", "--v", "V.npz", "--wires", "r_wordline=-1"], ["wires.r_wordline = -1.0", "[ohm]"]),
        (["G.npz", "--v", "V.npz", "--wires", "r_wordlin=1"], ["unknown field 'wires.r_wordlin'", "'r_wordline'"]),
        (["G.npz", "--v", "V.npz", "--wires", "r_wordline"], ["--wires 'r_wordline'", "FIELD=VALUE"]),
        (["G.npz", "--v", "V.npz", "--wires", "r_sense=1", "--wires", "r_sense=2"], ["r_sense is given twice"]),
        (["G.npz", "--v", "twice.npz"], ["twice.npz", "both 'v' and voltages of edges"]),
        (["G.npz", "--v", "V.npz", "--iv", "kind=cubic"], ["iv.kind = 'cubic'", "'sinh'"]),
        (["G.npz", "--v", "V.npz", "--iv", "kind=sinh"], ["iv.v0 is missing"]),
        (
            ["G.npz", "--v", "V.npz", "--iv", "kind=table,g=[1e-5],v=[-1,0,1],i=[[-1e-5,0,-1e-5]]"],
            ["iv: i[0] falls", "must not fall anywhere"],
        ),
        (["G.npz", "--v", "V.npz", "--out", "taken.h5"], ["taken.h5", "exists"]),
        (["G.npz", "--v", "V.npz", "--out", "G.npz", "--force"], ["G.npz", "is an input"]),
        (["G.npz", "--v", "V.npz", "--out", "nowhere/x.h5"], ["nowhere", "does not exist"]),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    xbarsim: Any, files: Path, command: str, arguments: list[str], fragments: list[str]
) -> None:
    before = {path.name: path.read_bytes() for path in files.iterdir()}
    assert_one_line_error(xbarsim(command, *arguments), *fragments)
    assert {path.name: path.read_bytes() for path in files.iterdir()} == before


def test_a_plot_of_a_strange_kind_and_a_deck_of_a_batch(xbarsim: Any, files: Path) -> None:
    assert_one_line_error(xbarsim("solve", "G.npz", "--v", "V.npz", "--plot", "maps.bmp"), "maps.bmp", ".png")
    assert_one_line_error(xbarsim("netlist", "G.npz", "--v", "batch.npz"), "batch.npz", "one set of voltages")
