"""Published and independently computed operating points: each folder of `golden` is one case.

``case.toml`` says where the figures come from, what the array is, and what must come out to which tolerance.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from xbarsim.circuit import Crossbar
from xbarsim.wires import Wires

CASES = sorted(Path(__file__).parent.joinpath("golden").glob("*/case.toml"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.parent.name)
def test_golden_case(path):
    case = tomllib.loads(path.read_text(encoding="utf-8"))
    assert set(case) == {"provenance", "array", "wires", "points"}
    assert "http" in case["provenance"]
    crossbar = Crossbar(1.0 / np.array(case["array"]["resistances"]), Wires(**case["wires"]))
    for point in case["points"]:
        assert set(point) <= {"v", "i_out", "cells", "tolerance"}
        solution = crossbar.solve(point["v"])
        if "i_out" in point:
            for found in (solution.i_out, crossbar.transfer_matrix() @ point["v"]):
                np.testing.assert_allclose(found, point["i_out"], rtol=0, atol=point["tolerance"])
        for cell in point.get("cells", ()):
            assert solution.i_cell[cell["row"], cell["col"]] == pytest.approx(cell["i"], rel=0, abs=point["tolerance"])


def test_there_are_cases():
    assert CASES
