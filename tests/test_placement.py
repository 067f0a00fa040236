import numpy as np
import pytest

import xbarsim as xs
from xbarsim.placement import Candidate, Rule, place

NODES = [
    Candidate(name="stem/conv", op="Conv", kernel=(7, 7), weights=9408, groups=1, first=True, last=False),
    Candidate(name="body/dw", op="Conv", kernel=(3, 3), weights=288, groups=32, first=False, last=False),
    Candidate(name="body/pw", op="Conv", kernel=(1, 1), weights=2048, groups=1, first=False, last=False),
    Candidate(name="head/fc", op="Gemm", kernel=(), weights=64000, groups=1, first=False, last=True),
]


@pytest.mark.parametrize(
    ("rule", "digital"),
    [
        ({"name": "body/*"}, {"body/dw", "body/pw"}),
        ({"name": "head/f?"}, {"head/fc"}),
        ({"op": "Gemm"}, {"head/fc"}),
        ({"kernel": (1, 1)}, {"body/pw"}),
        ({"position": "first"}, {"stem/conv"}),
        ({"position": "last"}, {"head/fc"}),
        ({"grouped": True}, {"body/dw"}),
        ({"max_weights": 2048}, {"body/dw", "body/pw"}),
        ({"min_weights": 9408}, {"stem/conv", "head/fc"}),
        ({"op": "Conv", "grouped": False, "max_weights": 5000}, {"body/pw"}),
        ({}, {node.name for node in NODES}),
    ],
)
def test_a_rule_holds_where_all_its_conditions_do(rule, digital):
    assert set(place([Rule(**rule)], NODES)) == digital


def test_the_first_rule_that_a_node_matches_decides():
    rules = [Rule(place="crossbar", name="body/pw"), Rule(op="Conv")]
    found = place(rules, NODES)
    assert found == {
        "stem/conv": "placement rule 2: op = Conv",
        "body/dw": "placement rule 2: op = Conv",
    }


def test_rules_in_a_chip_file_choose_what_runs_digitally(tmp_path):
    text = xs.Chip.load("ideal").to_toml()
    rules = (
        '\n[[placement]]\nplace = "digital"\nposition = "first"\n\n[[placement]]\nop = "Gemm"\nmin_weights = 10000\n'
    )
    path = tmp_path / "chip.toml"
    path.write_text(text.replace("placement = []\n", "") + rules)
    chip = xs.Chip.load(path)
    assert xs.Chip.from_toml(chip.to_toml()) == chip
    net = xs.load("lenet5")
    names = [layer.name for layer in net.layers]
    rows = {row.name: row for row in net.summary(chip).rows}
    digital = [name for name in names if rows[name].place == "digital"]
    assert names[0] in digital
    assert len(digital) > 1
    assert rows[names[0]].reason == "placement rule 1: position = first"
    assert {rows[name].reason for name in digital[1:]} == {"placement rule 2: op = Gemm, min_weights = 10000"}
    programmed = net.program(chip)
    assert list(programmed.layers) == [name for name in names if name not in digital]
    x = np.random.default_rng(0).integers(0, 256, (20, 1, 28, 28), np.uint8)
    digital_scores = net.run_digital(x)["logits"]
    np.testing.assert_allclose(programmed.run({"x": x})["logits"], digital_scores, rtol=1e-4, atol=1e-4)


def test_what_runs_digitally_has_no_faults():
    net = xs.load("lenet5")
    x = np.random.default_rng(0).integers(0, 256, (20, 1, 28, 28), np.uint8)
    faulty = xs.Chip.load("ideal").replace({"faults.p_stuck_on": 0.05})
    digital = faulty.replace({"placement": [{"place": "digital"}]})
    exact = net.run_digital(x)["logits"]
    assert not np.allclose(net.program(faulty).run({"x": x})["logits"], exact, rtol=0.01)
    np.testing.assert_allclose(net.program(digital).run({"x": x})["logits"], exact, rtol=1e-5, atol=1e-5)
    assert "nothing runs on crossbars" in str(net.summary(digital))


def test_calibration_belongs_to_a_placement():
    net = xs.load("lenet5")
    x = np.random.default_rng(0).integers(0, 256, (8, 1, 28, 28), np.uint8)
    chip = xs.Chip.load("hfo2-1t1r")
    ranges = net.calibrate(chip, x)
    with pytest.raises(xs.DataError, match="another design"):
        net.program(chip.replace({"placement": [{"position": "first"}]}), calibration=ranges)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"place": "gpu"}, r"placement\[0\].place = 'gpu' is not valid: input should be 'crossbar' or 'digital'"),
        (
            {"kernels": [1, 1]},
            r"unknown field 'placement\[0\].kernels'; valid fields of placement",
        ),
        ({"kernel": [0]}, r"placement\[0\].kernel\[0\] = 0 is not valid: input should be greater than or equal to 1"),
        ({"min_weights": -1}, r"placement\[0\].min_weights = -1 is not valid"),
    ],
)
def test_invalid_rules_are_refused(rule, message):
    with pytest.raises(xs.ChipError, match=message):
        xs.Chip.load("ideal").replace({"placement": [rule]})


def test_a_rule_that_no_node_matches_is_told(xbarsim):
    result = xbarsim("summary", "lenet5", "--chip", "ideal", "--set", "placement=[{op='Convv'}, {op='Gemm'}]")
    assert "note     placement rule 1 (op = Convv) matches no node" in result.out
    assert "rule 2 (" not in result.out
