"""Machine: what a figure was measured on, as far as its time depends on it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Annotated, Any

import llvmlite.binding as llvm
import numpy as np
from pydantic import Field
from threadpoolctl import threadpool_info

from xbarsim.spec import Spec
from xbarsim.versions import versions

__all__ = ["Machine", "Text", "vector_bits"]

_CPU_INFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_NARROW = {"Haswell", "Zen"}
"""Processors for which OpenBLAS has 256-bit kernels; it takes those that it does not know for one of these."""


Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
"""One line, which a terminal shows and does not obey."""


class Machine(Spec):
    """Processor, and versions of what computes."""

    cpu: Text
    """Name that the processor gives itself."""
    architecture: Text
    """The processor as LLVM knows it, which the kernels are compiled for."""
    cores: int
    """Processors that this process may use."""
    governor: Text | None
    """What sets the processor's clock; None where the system does not say."""
    vector_bits: int
    """Width of the vector registers that the kernels are compiled for."""
    system: Text
    xbarsim: Text
    python: Text
    numpy: Text
    numba: Text
    llvm: Text
    blas: Text
    """The library behind NumPy's products, with its version and the processor it takes this one for."""

    @staticmethod
    def this() -> Machine:
        """The one that this process runs on."""
        found = versions()
        return Machine(
            cpu=_cpu(),
            architecture=f"{platform.machine()}, {llvm.get_host_cpu_name()}",
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            governor=_line(_GOVERNOR),
            vector_bits=vector_bits(),
            system=platform.system(),
            xbarsim=found["xbarsim"],
            python=found["python"],
            numpy=found["numpy"],
            numba=found["numba"],
            llvm=".".join(map(str, llvm.llvm_version_info)),
            blas=_blas(),
        )

    @property
    def note(self) -> str:
        """What BLAS leaves unused of this processor, and how to change that; empty where it does not."""
        core = self.blas.split()[-1]
        if self.vector_bits < 512 or core not in _NARROW:
            return ""
        return (
            f"note: this BLAS takes the processor for a {core} and uses half of its vectors; "
            f"OPENBLAS_CORETYPE=SkylakeX makes it a stronger opponent"
        )

    @property
    def name(self) -> str:
        """Processor, Python and NumPy, for titles."""
        return f"{self.cpu}, {self.cores} cores; Python {self.python}, NumPy {self.numpy}"

    def describe(self) -> str:
        """A few lines for people."""
        clock = f", governor {self.governor}" if self.governor else ""
        lines = (
            f"{self.cpu} ({self.architecture}), {self.cores} cores{clock}, {self.vector_bits}-bit vectors",
            f"xbarsim {self.xbarsim}, Python {self.python}, NumPy {self.numpy}, Numba {self.numba}, LLVM {self.llvm}, "
            f"{self.blas}",
            self.note,
        )
        return "\n".join(line for line in lines if line)


def vector_bits() -> int:
    """Width of the processor's vector registers [bits], as far as LLVM uses them."""
    features = llvm.get_host_cpu_features()
    return 512 if features.get("avx512f") else 256 if features.get("avx") else 128


def _line(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def _cpu() -> str:
    lines = (_line(_CPU_INFO) or "").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _blas() -> str:
    found = [entry for entry in threadpool_info() if entry["user_api"] == "blas"]
    # SciPy brings one of its own
    own = [entry for entry in found if "numpy" in entry["filepath"]] or found
    if own:
        said = (own[0]["internal_api"], own[0].get("version"), own[0].get("architecture"))
        return " ".join(text for text in said if text)
    built: Any = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{built.get('name', 'unknown')} {built.get('version', '')}".strip()
