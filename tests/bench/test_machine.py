"""What a figure was measured on."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest

from xbarsim.bench import Machine, machine


def test_this_machine_describes_itself() -> None:
    found = Machine.this()
    assert found.cores >= 1
    assert found.vector_bits in (128, 256, 512)
    assert found.python == platform.python_version()
    for text in (found.cpu, found.blas, f"NumPy {np.__version__}", f"{found.vector_bits}-bit vectors"):
        assert text in found.describe()


def test_a_system_that_tells_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "none")
    monkeypatch.setattr(machine, "_GOVERNOR", tmp_path / "none")
    monkeypatch.setattr(machine, "threadpool_info", list)
    found = Machine.this()
    assert found.governor is None
    assert found.cpu
    assert found.blas
    assert "governor" not in found.describe()


def test_a_governor_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "governor").write_text("powersave\n")
    monkeypatch.setattr(machine, "_GOVERNOR", tmp_path / "governor")
    assert "governor powersave" in Machine.this().describe()


@pytest.mark.parametrize(
    ("bits", "blas", "noted"),
    [(512, "openblas 0.3 Haswell", True), (512, "openblas 0.3 SkylakeX", False), (256, "openblas 0.3 Haswell", False)],
)
def test_a_blas_that_leaves_vectors_unused_is_noted(bits: int, blas: str, noted: bool) -> None:
    found = Machine.this().model_copy(update={"vector_bits": bits, "blas": blas})
    assert ("OPENBLAS_CORETYPE" in found.describe()) == noted
