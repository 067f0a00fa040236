"""HDF5 files on disks that are full: one clear error, no file, and a process that goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from xbarsim.errors import OutputError
from xbarsim.hdf5 import new_hdf5

ROOT = Path(__file__).parent.parent

WRITER = """
import resource, signal, sys
import numpy as np
from xbarsim.errors import OutputError
from xbarsim.hdf5 import new_hdf5

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit is an error then, as on a full disk
for limit in map(int, sys.argv[2:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        with new_hdf5(sys.argv[1]) as file:
            file.attrs["text"] = "x" * 5000
            for name in "abcdef":
                group = file.create_group(f"{name}/inner")
                group.create_dataset("plain", data=np.arange(2000.0))
                values = np.random.default_rng(0).random((300, 40))
                group.create_dataset("packed", data=values, compression="gzip", chunks=(30, 40))
                group["plain"].attrs["units"] = "S"
                file.flush()
        print(limit, "written")
    except OutputError as error:
        print(limit, error)
"""


def test_a_file_that_cannot_be_written_to_its_end_is_one_error(tmp_path):
    """Whatever piece of it is the first that does not fit; without the stream some of them end the process."""
    limits = [*range(0, 20_000, 1_500), *range(20_000, 700_000, 40_000), 1_000_000]
    path = tmp_path / "f.h5"
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(path), *map(str, limits)],
        capture_output=True, text=True, check=False, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    expected = [f"{limit} {path}: cannot be written: File too large" for limit in limits]
    assert lines == [*expected[:-1], "1000000 written"]
    assert [item.name for item in tmp_path.iterdir()] == ["f.h5"]


def test_what_is_written_is_what_is_read(tmp_path):
    values = np.random.default_rng(1).random((200, 70))
    with new_hdf5(tmp_path / "f.h5") as file:
        file.create_dataset("packed", data=values, compression="gzip")
        file["plain"] = values
        file.attrs["text"] = "ä"
    with h5py.File(tmp_path / "f.h5") as file:
        np.testing.assert_array_equal(file["packed"], values)
        np.testing.assert_array_equal(file["plain"], values)
        assert file.attrs["text"] == "ä"
    with pytest.raises(OutputError, match="exists"), new_hdf5(tmp_path / "f.h5"):
        pass


def test_an_error_in_the_block_leaves_no_file(tmp_path):
    with pytest.raises(TypeError, match="no native HDF5 equivalent"), new_hdf5(tmp_path / "f.h5") as file:
        file["a"] = np.array([object()])
    assert list(tmp_path.iterdir()) == []
