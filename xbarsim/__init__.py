"""xbarsim: trained networks on simulated ReRAM crossbar chips, exact and fast.

The data flow is the layout: weights pass `Mapping`, `Device` and `Faults` into a `Macro`; `load` reads a network whose
crossbar layers run on macros; `evaluate` says what accuracy many simulated chips give. Names are imported when they
are first used, so that ``import xbarsim`` and ``xbarsim --help`` are instant.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xbarsim.bias import Bias
    from xbarsim.chip import Chip
    from xbarsim.circuit import Crossbar
    from xbarsim.data import Dataset, Pixels
    from xbarsim.errors import (
        ChipError,
        CircuitError,
        DataError,
        MetricError,
        ModelError,
        OutputError,
        StudyError,
        XbarsimError,
    )
    from xbarsim.evaluation import Evaluation, evaluate
    from xbarsim.faultmap import FaultMap
    from xbarsim.macro import Macro, Ranges
    from xbarsim.network import Calibration, Network, ProgrammedNetwork, load, load_matrices
    from xbarsim.solution import Solution
    from xbarsim.study import Study, sweep
    from xbarsim.wires import Wires

_HOMES = {
    "Bias": "bias",
    "Calibration": "network",
    "Chip": "chip",
    "ChipError": "errors",
    "CircuitError": "errors",
    "Crossbar": "circuit",
    "DataError": "errors",
    "Dataset": "data",
    "Evaluation": "evaluation",
    "FaultMap": "faultmap",
    "Macro": "macro",
    "MetricError": "errors",
    "ModelError": "errors",
    "Network": "network",
    "OutputError": "errors",
    "Pixels": "data",
    "ProgrammedNetwork": "network",
    "Ranges": "macro",
    "Solution": "solution",
    "Study": "study",
    "StudyError": "errors",
    "Wires": "wires",
    "XbarsimError": "errors",
    "evaluate": "evaluation",
    "load": "network",
    "load_matrices": "network",
    "sweep": "study",
}

__all__ = [
    "Bias",
    "Calibration",
    "Chip",
    "ChipError",
    "CircuitError",
    "Crossbar",
    "DataError",
    "Dataset",
    "Evaluation",
    "FaultMap",
    "Macro",
    "MetricError",
    "ModelError",
    "Network",
    "OutputError",
    "Pixels",
    "ProgrammedNetwork",
    "Ranges",
    "Solution",
    "Study",
    "StudyError",
    "Wires",
    "XbarsimError",
    "evaluate",
    "load",
    "load_matrices",
    "sweep",
]

try:
    __version__ = version("xbarsim")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0+source"


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"xbarsim.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'xbarsim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
