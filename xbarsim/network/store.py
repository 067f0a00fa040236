"""Store: a programmed chip in one HDF5 file, so that what was programmed and solved once need not be again.

A group for each macro holds its ranges, its cells at every stage and its faults, those of further copies in groups
within; another one how its products are corrected; attributes say what chip of which network it is. All arrays carry
checksums. A restored chip gives the same bits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import numpy as np
import numpy.typing as npt

from xbarsim.cells import Cells
from xbarsim.chip import Chip
from xbarsim.errors import DataError, XbarsimError
from xbarsim.faultmap import CellFaults, FaultMap
from xbarsim.hdf5 import new_hdf5
from xbarsim.macro import Macro, Ranges
from xbarsim.network.corrected import Affine
from xbarsim.paths import PathName, check_path
from xbarsim.programming import Stages
from xbarsim.replica import replica_names
from xbarsim.tiling import Tiling
from xbarsim.versions import versions

if TYPE_CHECKING:
    from xbarsim.network.layers import Layer
    from xbarsim.network.network import Network
    from xbarsim.network.programmed import ProgrammedNetwork

__all__ = ["FORMAT", "restore", "save"]

FORMAT = "xbarsim-chip-1"

_Restored = tuple[Chip, int, int, str, dict[str, tuple[Macro, ...]], PathName, dict[str, tuple[Affine, ...]]]

_STAGES = ("target", "programmed", "aged", "effective")


def save(programmed: ProgrammedNetwork, path: str | Path, *, force: bool) -> None:
    """Write a programmed network; see `ProgrammedNetwork.save`."""
    with new_hdf5(path, force=force) as file:
        file.attrs["format"] = FORMAT
        file.attrs["created"] = datetime.now(UTC).isoformat(timespec="seconds")
        file.attrs["versions"] = json.dumps(versions())
        # attributes are limited to 64 KB, measured tables are not
        file["chip"] = programmed.chip.to_toml()
        file.attrs["model_sha256"] = programmed.network.digest
        file.attrs["seed"], file.attrs["write"] = programmed.seed, programmed.write
        file.attrs["dtype"], file.attrs["path"] = programmed.dtype.name, programmed.path
        for layer in programmed.partition.layers:
            for name, macro in zip(layer.macro_names, programmed.layers[layer.name], strict=True):
                # layers' names may hold slashes, which mean groups in HDF5
                group = file.create_group(f"macros/{quote(name, safe='')}")
                _write_ranges(group, macro.ranges)
                for replica in macro.replicas:
                    first = replica is macro.replicas[0]
                    _write_stages(group if first else group.create_group(quote(replica.name, safe="")), replica.stages)
            for name, correction in zip(layer.macro_names, programmed.corrections.get(layer.name, ()), strict=False):
                group = file.create_group(f"corrections/{quote(name, safe='')}")
                _write(group, "scale", correction.scale)
                _write(group, "shift", correction.shift)


def _write_stages(group: Any, stages: Stages) -> None:
    written: dict[str, Cells] = {}
    _write(group, "owned", stages.target.owned)
    for stage in _STAGES:
        cells: Cells = getattr(stages, stage)
        # stages that are the same are stored once, under both names
        before = next((name for name, other in written.items() if other is cells), None)
        if before is not None:
            group[stage] = group[before]
            continue
        written[stage] = cells
        for part in ("g", "reference"):
            _write(group, f"{stage}/{part}", getattr(cells, part)).attrs["units"] = "S"
    if stages.at_zero is not None:
        _write(group, "at_zero", stages.at_zero)
    for name, faults in stages.faults.arrays.items():
        part = group.create_group(f"faults/{quote(name, safe='')}")
        _write(part, "kind", faults.kind)
        _write(part, "g", faults.g)
        part.attrs["asked"], part.attrs["absent"] = [faults.asked_on, faults.asked_off], faults.absent


def _write_ranges(group: Any, ranges: Ranges | None) -> None:
    if ranges is not None:
        group.attrs["x_max"], group.attrs["signed"] = ranges.x_max, ranges.signed
        if ranges.i_max is not None:
            group.attrs["i_max"] = ranges.i_max
        if not ranges.reached:
            group.attrs["reached"] = False


def _write(group: Any, name: str, data: npt.NDArray[Any]) -> Any:
    return group.create_dataset(name, data=data, fletcher32=data.size > 0)


def restore(network: Network, path: str | Path, threads: int | None) -> _Restored:
    """Chip, seed, write, precision, macros, path and corrections of a file; see `Network.restore`."""
    import h5py

    try:
        with Path(path).open("rb"):
            pass
        with h5py.File(path, "r") as file:
            return _read(network, file, str(path), threads)
    except XbarsimError as error:
        text = str(error)
        raise DataError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or 'not a readable HDF5 file, or damaged'}") from None
    except Exception as error:  # a damaged file raises whatever the HDF5 library meets first
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not a programmed chip, or damaged: {reason}") from None


def _read(network: Network, file: Any, path: str, threads: int | None) -> _Restored:
    attributes = dict(file.attrs)
    if attributes.get("format") != FORMAT:
        raise DataError(f"{path}: not a file of a programmed chip ({FORMAT}) but {attributes.get('format')!r}")
    by, here = json.loads(attributes["versions"])["xbarsim"], versions()["xbarsim"]
    if by != here:
        raise DataError(f"{path}: was written by xbarsim {by}, this is {here}; program the network anew")
    if attributes["model_sha256"] != network.digest:
        raise DataError(f"{path}: holds another model than {network.path}")
    chip = Chip.from_toml(file["chip"].asstr()[()], origin=path)
    seed, write, dtype = int(attributes["seed"]), int(attributes["write"]), str(attributes["dtype"])
    computed = check_path(str(attributes["path"]))

    def macro(name: str, weights: npt.NDArray[Any], layer: Layer) -> Macro:
        group = file["macros"][quote(name, safe="")]
        _, *others = replica_names(name, chip)
        copies = [group, *(group[quote(other, safe="")] for other in others)]
        return Macro(
            weights,
            chip,
            seed=seed,
            write=write,
            layer=name,
            ranges=_ranges(group.attrs),
            dtype=layer.precision(np.dtype(dtype)),
            threads=threads,
            path=computed,
            stages=[_stages(copy, chip, layer) for copy in copies],
        )

    layers = {
        layer.name: tuple(
            macro(name, weights, layer) for name, weights in zip(layer.macro_names, layer.weights, strict=True)
        )
        for layer in network.partition_for(chip).layers
    }
    given = file.get("corrections", {})
    corrections = {
        layer.name: tuple(_correction(given[quote(name, safe="")], layer) for name in layer.macro_names)
        for layer in network.partition_for(chip).layers
        if quote(layer.macro_names[0], safe="") in given
    }
    return chip, seed, write, dtype, layers, computed, corrections


def _correction(group: Any, layer: Layer) -> Affine:
    return Affine(*(_array(group, name, np.float64, layer.shape[:1]) for name in ("scale", "shift")))


def _ranges(attributes: Mapping[str, Any]) -> Ranges | None:
    if "x_max" not in attributes:
        return None
    i_max = float(attributes["i_max"]) if "i_max" in attributes else None
    reached = bool(attributes.get("reached", True))
    return Ranges(float(attributes["x_max"]), bool(attributes["signed"]), i_max, reached)


def _stages(group: Any, chip: Chip, layer: Layer) -> Stages:
    n_out, n_in = layer.shape
    mapping, tiling = chip.mapping, Tiling.of(chip, n_out, n_in)
    tiles = tiling.column_tiles if chip.reference_columns else 0
    shapes = {
        "g": (n_in, n_out, mapping.polarities, mapping.weight_slices),
        "reference": (n_in, tiles, mapping.weight_slices),
    }
    owned = _array(group, "owned", np.bool_, (n_in, n_out))
    found: dict[str, Cells] = {}
    for stage in _STAGES:
        same = next((cells for name, cells in found.items() if group[name] == group[stage]), None)
        if same is None:
            g, reference = (_array(group, f"{stage}/{part}", np.float64, shape) for part, shape in shapes.items())
            same = Cells(g, reference, owned)
        found[stage] = same
    at_zero = _array(group, "at_zero", np.float64, (n_out,)) if "at_zero" in group else None
    return Stages(**found, faults=_faults(group.get("faults", {}), tiling), at_zero=at_zero)


def _faults(group: Mapping[str, Any], tiling: Tiling) -> FaultMap:
    arrays = {}
    for key, part in group.items():
        shape = part["kind"].shape
        if len(shape) != 2 or np.prod(shape) > tiling.n_cells:
            raise ValueError(f"faults of array {unquote(key)!r} have shape {shape}")
        kind, g = _array(part, "kind", np.int8, shape), _array(part, "g", np.float64, shape, missing=True)
        on, off = (float(value) for value in part.attrs["asked"])
        arrays[unquote(key)] = CellFaults(kind, g, on, off, int(part.attrs["absent"]))
    return FaultMap(arrays)


def _array(
    group: Any, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...], *, missing: bool = False
) -> npt.NDArray[Any]:
    """An array of the shape that the network and the chip ask for; finite unless values may be missing."""
    data = group[name]
    if data.shape != shape or data.dtype != dtype:
        raise ValueError(f"{data.name} is {data.dtype} of shape {data.shape}, not {np.dtype(dtype)} of {shape}")
    values: npt.NDArray[Any] = data[()]
    if not missing and not np.isfinite(values).all():
        raise ValueError(f"{data.name} holds NaN or infinite values")
    return values
