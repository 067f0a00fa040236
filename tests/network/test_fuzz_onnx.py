"""Mutated models: `tests/network/fuzzing.py` says how, and runs more of them."""

import os

import onnx
import pytest
from fuzzing import SEEDS, fuzz, mutated, outcome

COUNT = int(os.environ.get("XBARSIM_FUZZ_COUNT", "1000"))


@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_seeds_run_and_match(tmp_path, seed):
    mutated(0, 0, tmp_path)  # writes the tensors that lie outside
    onnx.save(SEEDS[seed](), tmp_path / "seed.onnx")
    assert outcome(tmp_path / "seed.onnx") == "runs"


def test_mutated_models_are_refused_in_one_line_or_run():
    counts, defects = fuzz(0, range(COUNT))
    assert not defects
    assert sum(counts.values()) == COUNT
    assert counts["refused"] > COUNT // 3  # mutations do harm
    assert counts["runs"] > COUNT // 10  # but not always
