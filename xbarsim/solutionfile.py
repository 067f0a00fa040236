"""Solution file: an array, what is applied to it, and its operating point, in one HDF5 file."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from xbarsim.circuit import Crossbar
from xbarsim.hdf5 import new_hdf5
from xbarsim.solution import Solution

__all__ = ["FORMAT", "write_solution"]

FORMAT = "xbarsim-solution-1"

_UNITS = {
    "v_wordline": "V",
    "v_bitline": "V",
    "i_cell": "A",
    "i_left": "A",
    "i_right": "A",
    "i_top": "A",
    "i_bottom": "A",
    "i_in": "A",
    "i_out": "A",
    "ir_drop": "V",
    "power": "W",
    "residual": "V",
    "iterations": "1",
}
_EDGES = ("left", "right", "top", "bottom")


def write_solution(path: str | Path, crossbar: Crossbar, solution: Solution, *, force: bool = False) -> None:
    """Write conductances ``g``, the bias (``left``, ``right``, ``top``, ``bottom``) and all of a solution's arrays.

    Each data set has its unit as an attribute; ``wires`` and ``iv`` are attributes of the file, as JSON.

    Raises
    ------
    OutputError
        The file exists and ``force`` is not set, or it cannot be written.
    """
    try:
        own = version("xbarsim")
    except PackageNotFoundError:
        own = "source"
    arrays = {"g": (crossbar.g, "S")}
    arrays |= {name: (getattr(solution.bias, name), "V") for name in _EDGES}
    arrays |= {name: (np.asarray(getattr(solution, name)), unit) for name, unit in _UNITS.items()}
    with new_hdf5(path, force=force) as file:
        file.attrs["format"] = FORMAT
        file.attrs["xbarsim"] = own
        file.attrs["wires"] = crossbar.wires.model_dump_json()
        file.attrs["iv"] = json.dumps(crossbar.iv.model_dump(mode="json"))
        for name, (values, unit) in arrays.items():
            options = {"compression": "gzip", "shuffle": True} if values.ndim > 1 else {}
            file.create_dataset(name, data=values, **options).attrs["units"] = unit
