"""With NUMBA_DISABLE_JIT=1 circuits are solved in NumPy, with the same results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from xbarsim import Bias, Crossbar, Wires, iv

ROOT = Path(__file__).parent.parent


def found() -> dict[str, list[float]]:
    """Results of all solvers for one array."""
    rng = np.random.default_rng(5)
    g, v = rng.uniform(1e-6, 1e-4, (11, 9)), rng.uniform(0.0, 0.4, 11)
    g[rng.random(g.shape) < 0.1] = 0.0
    wires = Wires(r_wordline=3.0, r_bitline=2.0, r_driver=40.0, r_sense=20.0)
    linear = Crossbar(g, wires)
    both = Crossbar(g, Wires(r_wordline=3.0, r_bitline=2.0, drive="both", sense="both"))
    results = {
        "matrix": linear.transfer_matrix(),
        "matrix, both ends": both.transfer_matrix(),
        "solution": linear.solve(v).i_cell,
        "floating": linear.solve(Bias.select(2, 3, 0.4, 11, 9, "floating", wires)).v_bitline,
        "sinh": Crossbar(g, wires, iv.Sinh(v0=0.25)).solve(v).i_cell,
        "transistor": Crossbar(g, wires, iv.Transistor(v_gate=1.5, v_threshold=0.5, k=1e-4)).solve(v).i_cell,
    }
    return {name: values.ravel().tolist() for name, values in results.items()}


def test_results_are_the_same_without_compilation() -> None:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), str(ROOT / "tests")])
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": paths}
    code = "import json, numba, test_without_compilation as test\nassert numba.config.DISABLE_JIT\n"
    code += "print(json.dumps(test.found()))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    plain = json.loads(done.stdout)
    compiled = found()
    assert plain.keys() == compiled.keys()
    for name, values in compiled.items():
        np.testing.assert_allclose(plain[name], values, rtol=0, atol=1e-12 * np.abs(values).max(), err_msg=name)
