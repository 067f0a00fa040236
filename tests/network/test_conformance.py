"""ONNX's own backend tests on the ideal chip; `conformance` says what is a weight in them, and which cannot pass."""

import onnx
import pytest
from conformance import ENGINES, EXCLUDED, UNMAPPED, OnChip, has_weights, in_onnxruntime, installed, outcome, table
from onnx_models import IDEAL

SUITE = installed()
INCLUDED = [name for name in SUITE.names if name not in EXCLUDED]
IS_MENDED = tuple(map(int, onnx.__version__.split(".")[:2])) >= (1, 23)
"""Older suites want some results that are wrong, such as whole numbers that overflow instead of saturating."""


@pytest.fixture(scope="module")
def outcomes():
    return {}


@pytest.fixture(scope="module")
def flawed():
    return set()


@pytest.mark.parametrize("name", INCLUDED)
def test_ideal_chips_pass_the_backend_tests(name, outcomes, flawed):
    outcomes[name], failure = outcome(SUITE, name, IDEAL)
    if failure is not None:
        if not IS_MENDED and SUITE.fails(name, in_onnxruntime):
            flawed.add(name)
            pytest.xfail(f"the suite of onnx {onnx.__version__} fails in onnxruntime too")
        raise failure


@pytest.mark.parametrize("name", [name for name in SUITE.names if name in EXCLUDED])
def test_excluded_tests_fail_outside_of_xbarsim_too(name):
    assert SUITE.fails(name, OnChip(IDEAL)), f"{name} passes: take it out of EXCLUDED"
    assert {engine for engine, run in ENGINES.items() if SUITE.fails(name, run)} == EXCLUDED[name].fails_in


def test_counts(outcomes, flawed):
    left = len(INCLUDED) - len(outcomes)
    if left:
        pytest.skip(f"{left} of the tests did not run before; python tests/network/conformance.py counts them all")
    print(table(SUITE.names, outcomes))
    passed = {name for name, found in outcomes.items() if found.passed}
    reached = {name for name, found in outcomes.items() if found.reached}
    assert len(passed) >= len(SUITE.names) - len(EXCLUDED) - len(flawed)
    assert reached <= passed | flawed
    assert reached == {name for name in SUITE.names if has_weights(SUITE.model(name))} - UNMAPPED
    if onnx.__version__ == "1.23.2":
        assert len(passed) >= 1998
        assert len(reached) >= 120
