"""Export: a study's figures as one flat table, a row for each chip, for spreadsheets and data frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xbarsim.errors import DataError, OutputError
from xbarsim.files import new_file
from xbarsim.study.dataset import metrics

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["SUFFIXES", "export", "table"]

SUFFIXES = (".csv", ".parquet")


def table(dataset: xr.Dataset, *, layers: bool = False) -> pd.DataFrame:
    """The figures of a study, a row for each chip that is finished.

    Parameters
    ----------
    dataset
        Figures of a study.
    layers
        A row for each layer of each chip instead, with the layers' figures.

    Returns
    -------
    pandas.DataFrame
        Columns are the axes and what varies with them, ``chip`` (the seed), then the figures: each metric,
        ``signal_to_error_db``, and the digital network's.

    Raises
    ------
    DataError
        There are no figures of layers.
    """
    own = [*metrics(dataset), "signal_to_error_db"]
    axes = [str(dim) for dim in dataset["signal_to_error_db"].dims]
    names = own + [str(name) for name in dataset.data_vars if str(name).startswith("digital_")]
    if layers:
        axes.append("layer")
        names = [str(name) for name in dataset.data_vars if "layer" in dataset[name].dims]
        if not names:
            raise DataError("the study has no figures of layers yet")
    is_there = dataset[own].to_array("figure").notnull().any("figure")
    there = dataset[names].assign_coords(is_there=is_there)
    found = there.to_dataframe(dim_order=axes).reset_index()
    if layers:  # of the layers of all models, those of this one
        found["is_there"] &= found["layer_path"] != ""
    varied = [str(name) for name, coord in dataset.coords.items() if set(coord.dims) <= set(axes)]
    columns = [*axes[: axes.index("chip")], *(name for name in varied if name not in axes), *axes[axes.index("chip") :]]
    found = found.loc[found["is_there"], [*columns, *names]].reset_index(drop=True)
    found.attrs = {name: str(dataset.attrs[name]) for name in ("format", "name", "study") if name in dataset.attrs}
    return found


def export(dataset: xr.Dataset, path: str | Path, *, layers: bool = False, force: bool = False) -> None:
    """Write the table of a study, as CSV or Parquet by the suffix of the file.

    Raises
    ------
    OutputError
        The suffix is another, the file exists and ``force`` is not set, it cannot be written, or pyarrow is missing.
    DataError
        There are no figures of layers.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise OutputError(f"{path}: tables are {' or '.join(SUFFIXES)}; give the file one of these suffixes")
    found = table(dataset, layers=layers)
    with new_file(path, force=force) as temporary:
        if suffix == ".csv":
            found.to_csv(temporary, index=False, lineterminator="\n")
            return
        try:
            found.to_parquet(temporary, engine="pyarrow", index=False)
        except ImportError:
            raise OutputError(f"{path}: Parquet needs pyarrow: pip install 'xbarsim[parquet]'") from None
