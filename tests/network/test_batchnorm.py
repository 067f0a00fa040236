import numpy as np
import pytest
from onnx_models import assert_matches_onnxruntime, node, normal, row, saved

import xbarsim as xs

BATCH_NORM = {"s": normal(4, seed=3), "o": normal(4, seed=4), "m": normal(4, seed=5), "v": normal(4, seed=6) ** 2 + 0.1}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_batch_normalisation_goes_into_the_convolution(tmp_path, bias, groups):
    network = saved(
        tmp_path,
        [
            node("Conv", ["x", "w", *(["b"] if bias else [])], ["c"], name="conv", group=groups),
            node("BatchNormalization", ["c", "s", "o", "m", "v"], ["y"], name="bn", epsilon=1e-3),
        ],
        {"x": ["N", 2, 6, 6]},
        {"y": None},
        {"w": normal(4, 2 // groups, 3, 3), "b": normal(4, seed=1)} | BATCH_NORM,
    )
    (layer,) = network.layers
    assert layer.output == "y"
    assert [(item.name, item.reason) for item in network.summary().rows] == [
        ("conv", "with bn (BatchNormalization) in its weights")
    ]
    assert_matches_onnxruntime(network, {"x": normal(3, 2, 6, 6)})


@pytest.mark.parametrize("why", ["second reader", "output", "training", "not constant"])
def test_batch_normalisation_stays_where_it_must(tmp_path, why):
    outputs = {"y": None} | ({"z": None} if why == "second reader" else {"c": None} if why == "output" else {})
    constants = {"w": normal(4, 2, 3, 3)} | BATCH_NORM
    inputs = {"x": ["N", 2, 6, 6]}
    if why == "not constant":
        del constants["s"]
        inputs["s"] = [4]
    training = {"training_mode": 1} if why == "training" else {}
    statistics = ["rm", "rv"] if why == "training" else []
    network = saved(
        tmp_path,
        [
            node("Conv", ["x", "w"], ["c"], name="conv"),
            node("BatchNormalization", ["c", "s", "o", "m", "v"], ["y", *statistics], name="bn", **training),
            *([node("Relu", ["c"], ["z"])] if why == "second reader" else []),
        ],
        inputs,
        outputs,
        constants,
    )
    assert row(network, "bn").place == "digital"
    if why != "training":
        feeds = {"x": normal(3, 2, 6, 6)} | ({"s": normal(4, seed=7)} if "s" in inputs else {})
        assert_matches_onnxruntime(network, feeds)


def test_not_finite_statistics_are_refused_by_name(tmp_path):
    with pytest.raises(xs.ModelError, match="tensor 'm' holds 1 NaN"):
        saved(
            tmp_path,
            [node("Conv", ["x", "w"], ["c"]), node("BatchNormalization", ["c", "s", "o", "m", "v"], ["y"])],
            {"x": ["N", 2, 6, 6]},
            {"y": None},
            {"w": normal(4, 2, 3, 3)} | BATCH_NORM | {"m": np.array([0, np.nan, 0, 0], np.float32)},
        )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_batch_normalisation_goes_into_the_transposed_convolution(tmp_path, bias, groups):
    """Its weights have the outputs of a group along their second axis."""
    network = saved(
        tmp_path,
        [
            node(
                "ConvTranspose", ["x", "w", *(["b"] if bias else [])], ["c"], name="conv", group=groups, strides=[2, 2]
            ),
            node("BatchNormalization", ["c", "s", "o", "m", "v"], ["y"], name="bn"),
        ],
        {"x": ["N", 6, 5, 5]},
        {"y": None},
        {"w": normal(6, 4 // groups, 3, 3), "b": normal(4, seed=1)} | BATCH_NORM,
    )
    assert [item.name for item in network.summary().rows] == ["conv"]
    assert_matches_onnxruntime(network, {"x": normal(3, 6, 5, 5)})


@pytest.mark.parametrize("is_test", [0, 1])
def test_before_version_7_statistics_are_fixed_only_if_it_says_so(tmp_path, is_test):
    network = saved(
        tmp_path,
        [
            node("Conv", ["x", "w"], ["c"], name="conv", kernel_shape=[3, 3]),
            node("BatchNormalization", ["c", "s", "o", "m", "v"], ["y"], name="bn", is_test=is_test),
        ],
        {"x": ["N", 2, 6, 6]}, {"y": None}, {"w": normal(4, 2, 3, 3)} | BATCH_NORM, opset=6,
    )  # fmt: skip
    assert len(network.summary().rows) == 2 - is_test


def test_operators_of_other_domains_are_left_alone(tmp_path):
    with pytest.raises(xs.ModelError, match=r"onnxruntime refuses the model: .*elsewhere"):
        saved(
            tmp_path,
            [
                node("Conv", ["x", "w"], ["c"]),
                node("BatchNormalization", ["c", "s", "o", "m", "v"], ["y"], domain="elsewhere"),
            ],
            {"x": ["N", 2, 6, 6]}, {"y": None}, {"w": normal(4, 2, 3, 3)} | BATCH_NORM, domains=["elsewhere"],
        )  # fmt: skip
