"""Products on chips with 8-bit converters stay within the bound that `error_bound` computes, in ONNX's backend tests.

Each product is compared with the exact product of the inputs that it got on the chip. So the bound holds for all
layers, whatever runs between them and however errors have grown before.
"""

import numpy as np
import pytest
from conformance import EXCLUDED, UNMAPPED, has_weights, installed, load
from error_bound import CheckedProduct
from onnx_models import IDEAL

from xbarsim.network.executor import Executor

SUITE = installed()
ONTO_CROSSBARS = [name for name in SUITE.names if name not in {*EXCLUDED, *UNMAPPED} and has_weights(SUITE.model(name))]
SMALL = [name for name in ONTO_CROSSBARS if name not in SUITE.large]
COARSE = IDEAL.replace({"dac.bits": 8, "adc.bits": 8, "array.rows": 128, "array.cols": 128})
CHIPS = {
    "differential": COARSE,
    "two-column, subtracted after": COARSE.replace({"mapping": {"kind": "two-column"}, "adc.subtract": "after"}),
    "offset": COARSE.replace({"mapping": {"kind": "offset"}}),
}
CASES = [(mapping, name) for mapping in CHIPS for name in (ONTO_CROSSBARS if mapping == "differential" else SMALL)]


@pytest.fixture(scope="module")
def found():
    """Checks of each layer, for each case."""
    return {}


def checked(chip, name):
    """A test's outputs on a chip, as it runs by itself and with its products checked, and the checks of each layer."""
    network, feeds = load(*SUITE.case(name))
    programmed = network.program(chip, calibration=feeds)
    partition = programmed.partition
    checks = {layer.name: [] for layer in partition.layers}
    products = {
        layer.name: [
            CheckedProduct(macro, weights, checks[layer.name])
            for macro, weights in zip(programmed.layers[layer.name], layer.weights, strict=True)
        ]
        for layer in partition.layers
    }
    wanted = {output: output for output in network.outputs}
    batching = network.batching_for(feeds, chip)
    (outputs,) = Executor(partition, products).run(network.check_feeds(feeds), batching, 0, wanted)
    return programmed, feeds, outputs, checks


@pytest.mark.parametrize(("mapping", "name"), CASES)
def test_products_stay_within_the_bound(mapping, name, found):
    *_, checks = checked(CHIPS[mapping], name)
    assert checks
    for layer in checks.values():
        assert layer
        assert max(check.worst for check in layer) <= 1.0
        assert max(check.bound for check in layer) <= max(check.exact for check in layer)
    found[mapping, name] = [check for layer in checks.values() for check in layer]


@pytest.mark.parametrize("mapping", CHIPS)
def test_the_bound_is_sharp(mapping, found):
    mine = {case: checks for case, checks in found.items() if case[0] == mapping}
    left = sum(case[0] == mapping for case in CASES) - len(mine)
    if left:
        pytest.skip(f"{left} of the products did not run before, or not within the bound")
    shares = [sum(c.errors for c in checks) / sum(c.bounds for c in checks) for checks in mine.values()]
    worst = max(check.worst for checks in mine.values() for check in checks)
    print(f"{mapping}: {len(mine)} tests, {sum(map(len, mine.values())):,} products; errors are at most {worst:.3f} of")
    print(f"    their bound, on average {np.mean(shares):.2f}, {min(shares):.3f} to {max(shares):.2f} by test")
    assert worst > 0.5  # with one bit more than the converters have, it does not hold
    assert np.mean(shares) > 0.1


@pytest.mark.parametrize("name", ["test_Conv2d_groups", "test_gru_defaults", "test_qlinearconv"])
@pytest.mark.parametrize("mapping", CHIPS)
def test_checks_change_nothing(mapping, name):
    programmed, feeds, outputs, _ = checked(CHIPS[mapping], name)
    for key, value in programmed.run(feeds).items():
        np.testing.assert_array_equal(outputs[key], value)
