"""The same bits on every machine: neither vector width nor the lack of fused multiply-adds changes a result."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

CODE = """
import hashlib, numpy as np, xbarsim as xs
weights = np.sin(np.arange(40 * 150.0)).reshape(40, 150)
x = np.cos(np.arange(150 * 37.0)).reshape(150, 37)
digest = hashlib.sha256()
noisy = {"device.read_noise.kind": "proportional", "device.read_noise.sigma": 0.05, "faults.p_stuck_on": 0.02,
         "device.c2c.kind": "lognormal", "device.c2c.sigma": 0.1}
for changes in (noisy, noisy | {"dac.bits": 8, "adc.bits": 8}):
    for dtype in ("float32", "float64"):
        macro = xs.Macro(weights, xs.Chip.load("ideal").replace(changes), seed=3, calibration=x, dtype=dtype)
        digest.update((macro @ x).tobytes())
print(digest.hexdigest())
"""


def result(environment: dict[str, str]) -> str:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": paths} | environment,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("processor", ["generic", *(["haswell"] if platform.machine() == "x86_64" else [])])
def test_instruction_sets_change_nothing(processor: str) -> None:
    """Code for SSE2 without fused operations, and for AVX2, against code for this machine."""
    assert result({"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": ""}) == result({})
