"""Files: results appear whole or not at all; whatever an NPZ file holds, the answer is arrays or one line."""

from __future__ import annotations

import io
import os
import random
import stat
import struct
import zipfile

import numpy as np
import pytest

from xbarsim.errors import DataError, OutputError
from xbarsim.files import check_output, new_file, read_npz

LIMIT = 1 << 20


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# -- writing -----------------------------------------------------------------------------------------------------------


def test_a_new_file_takes_its_name_when_the_block_ends(tmp_path):
    path = tmp_path / "a.txt"
    with new_file(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".txt"
    assert path.read_text() == "whole"
    assert names(tmp_path) == ["a.txt"]


def test_a_block_that_fails_leaves_nothing(tmp_path):
    def write(path, **options):
        with new_file(path, **options) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write(tmp_path / "a.txt")
    assert names(tmp_path) == []
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError, match="stop"):
        write(tmp_path / "a.txt", force=True)
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_an_error_of_the_system_names_the_file_that_was_asked_for(tmp_path):
    def write():
        with new_file(tmp_path / "a.txt"):
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError) as caught:
        write()
    assert str(caught.value) == f"{tmp_path / 'a.txt'}: cannot be written: No space left on device"
    assert names(tmp_path) == []


def test_a_new_file_has_ordinary_permissions(tmp_path):
    old = os.umask(0o027)
    try:
        with new_file(tmp_path / "a.txt") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_an_existing_file_is_kept_unless_forced(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OutputError) as caught, new_file(path):
        pass
    assert str(caught.value) == f"{path}: exists; choose another name, or pass --force (in Python force=True)"
    with path.open() as reader:
        with new_file(path, force=True) as temporary:
            temporary.write_text("new")
        assert path.read_text() == "new"
        # who has the old file open keeps it whole: a name changes hands, nothing is overwritten
        assert reader.read() == "old"


def test_places_where_no_file_can_be_written(tmp_path):
    with pytest.raises(OutputError) as caught:
        check_output(tmp_path)
    assert str(caught.value) == f"{tmp_path}: is a folder; give a file name"
    with pytest.raises(OutputError) as caught:
        check_output(tmp_path, force=True)
    assert str(caught.value) == f"{tmp_path}: is a folder; give a file name"
    with pytest.raises(OutputError) as caught:
        check_output(tmp_path / "no" / "a.txt")
    assert str(caught.value) == f"{tmp_path / 'no' / 'a.txt'}: the folder {tmp_path / 'no'} does not exist"
    assert check_output(str(tmp_path / "a.txt")) == tmp_path / "a.txt"


# -- reading -----------------------------------------------------------------------------------------------------------


def refused(path, limit=LIMIT):
    with pytest.raises(DataError) as caught:
        read_npz(path, limit)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


def npy(array):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array))
    return buffer.getvalue()


def write_zip(path, entries, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back_as_they_were(tmp_path, save):
    arrays = {"a": np.arange(6).reshape(2, 3), "b/c": np.array([1.5, np.nan]), "e": np.empty((0, 4), np.int8)}
    save(tmp_path / "a.npz", **arrays)
    got = read_npz(tmp_path / "a.npz", LIMIT)
    assert list(got) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(got[name], array)
        assert got[name].dtype == array.dtype


def test_the_limit_counts_unpacked_bytes(tmp_path):
    """A small file that unpacks to a large array is refused before it is unpacked."""
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(1 << 21))
    assert (tmp_path / "bomb.npz").stat().st_size < 100_000
    assert (
        refused(tmp_path / "bomb.npz", 10 << 20) == "unpacks to 1 arrays of 17 MB; the limit is 10000 arrays of 10 MB"
    )
    assert read_npz(tmp_path / "bomb.npz", 17 << 20)["a"].size == 1 << 21


def test_objects_are_refused_and_never_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array([print], object))
    assert refused(tmp_path / "a.npz") == "array 'a' holds Python objects; only plain numbers are read"


def test_files_that_are_no_archive(tmp_path):
    assert refused(tmp_path / "none.npz") == "No such file or directory"
    (tmp_path / "folder.npz").mkdir()
    assert refused(tmp_path / "folder.npz") == "is a folder; give an .npz file"
    (tmp_path / "empty.npz").write_bytes(b"")
    assert refused(tmp_path / "empty.npz") == "the file is empty"
    (tmp_path / "text.npz").write_text("state,mean,sigma\n")
    assert refused(tmp_path / "text.npz").startswith("not an NPZ file, or damaged: ")
    np.save(tmp_path / "a.npy", np.ones(3))
    (tmp_path / "a.npy").rename(tmp_path / "npy.npz")
    assert refused(tmp_path / "npy.npz").startswith("not an NPZ file, or damaged: ")


def test_an_archive_of_other_files_is_refused(tmp_path):
    """NumPy hands an entry that is no array over as bytes: nobody downstream expects them."""
    refused(write_zip(tmp_path / "a.npz", {"map": b"hello"}))
    refused(write_zip(tmp_path / "b.npz", {"map.npy": b"hello"}))
    refused(write_zip(tmp_path / "c.npz", {"a.npy": npy([1.0]), "readme.txt": b"hello"}))


@pytest.mark.parametrize("shape", [(1 << 37,), (1 << 62,), (1 << 70,), (1 << 40, 1 << 40), (-1,)])
def test_a_header_that_claims_more_than_the_file_holds_is_refused(tmp_path, shape):
    """The claim alone must neither allocate nor overflow."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    refused(write_zip(tmp_path / "a.npz", {"a.npy": header.getvalue() + b"\0" * 64}))


@pytest.mark.parametrize("header", ["{'descr': '<f8', (", "  \n x\n y", "{'descr': '<f8', b'a': 1}", "\0"])
def test_a_header_that_is_no_dictionary_is_refused(tmp_path, header):
    text = header.encode().ljust(117) + b"\n"
    refused(write_zip(tmp_path / "a.npz", {"a.npy": b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text}))


def test_an_unknown_compression_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.npz", {"a.npy": npy(np.arange(10))})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        struct.pack_into("<H", data, data.index(signature) + offset, 99)
    path.write_bytes(data)
    refused(path)


def test_an_encrypted_archive_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.npz", {"a.npy": npy(np.arange(10))})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        struct.pack_into("<H", data, data.index(signature) + offset, 1)
    path.write_bytes(data)
    refused(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_archives_give_arrays_or_one_line(tmp_path, compression):
    """Bytes changed, cut off and inserted at random: never a traceback."""
    path = write_zip(
        tmp_path / "a.npz", {"a.npy": npy(np.arange(5.0)), "b.npy": npy(np.ones((2, 3), np.int8))}, compression
    )
    whole = path.read_bytes()
    rng = random.Random(4)
    outcomes = set()
    for _ in range(600):
        data = bytearray(whole)
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)) :]
        elif rng.random() < 0.2:
            data.insert(rng.randrange(len(data)), rng.randrange(256))
        else:
            for _ in range(rng.choice((1, 1, 2, 6))):
                data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            outcomes |= {type(array) for array in read_npz(path, LIMIT).values()}
        except DataError:
            outcomes.add("refused")
    assert outcomes == {"refused", np.ndarray}
