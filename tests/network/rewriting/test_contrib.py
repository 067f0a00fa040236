from __future__ import annotations

import numpy as np
import pytest
from drafts import CONTRIB, arrays, compare, digital, node, refused, scope

from xbarsim.errors import ModelError
from xbarsim.network.rewriting.contrib import REWRITERS

BATCH, LENGTH, HEADS, WIDTH, SIZE, BEFORE = 2, 3, 2, 4, 5, 2


def normal(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def uniform(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0.1, 1, shape).astype(np.float32)


def integers(dtype, *shape, seed=0):
    """Of 7 bits if signed: onnxruntime cuts off sums of two products where a processor has no VNNI."""
    low, high = (-64, 63) if np.iinfo(dtype).min else (0, 127)
    return np.random.default_rng(seed).integers(low, high + 1, shape).astype(dtype)


def contrib(op, inputs, outputs=("y",), **attributes):
    return node(op, inputs, outputs, domain=CONTRIB, **{key: x for key, x in attributes.items() if x is not None})


def check(original, constants, feeds, *, rtol=1e-6, **known):
    return compare(REWRITERS[original.op_type], original, constants, feeds, rtol=rtol, **known)


def reason(original, constants, feeds=None, **known):
    return refused(REWRITERS[original.op_type], original, constants, feeds, **known)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("lead", [(), (2,), (3, 2)])
def test_fused_matmul(lead, left, trans_a, trans_b, dtype):
    a, b = (3, 4)[:: 1 - 2 * trans_a], (4, 5)[:: 1 - 2 * trans_b]
    for shared in ((), lead):  # the constant is a matrix, or one for each of the leading axes
        shapes = [(*shared, *a), (*lead, *b)] if left else [(*lead, *a), (*shared, *b)]
        values = [normal(*shape, seed=seed, dtype=dtype) for seed, shape in enumerate(shapes)]
        original = contrib("FusedMatMul", ["w", "x"] if left else ["x", "w"], alpha=0.3, transA=trans_a, transB=trans_b)
        w, x = values if left else values[::-1]
        check(original, {"w": w}, {"x": x})


def test_fused_matmul_reasons():
    w, x = {"w": normal(4, 5)}, {"x": normal(2, 3, 4)}
    assert "batch axes" in reason(contrib("FusedMatMul", ["x", "w"], transBatchA=1), w, x)
    original = contrib("FusedMatMul", ["x", "w"], transA=1)
    assert reason(original, w, x, shapes={}) == "the rank of 'x' is not known"
    assert reason(original, {}, x) == "FusedMatMul of two activations"
    assert reason(contrib("FusedMatMul", ["x"]), {}) == "malformed"
    plain = contrib("TransposeMatMul", ["x", "w"], alpha=2.0)
    check(plain, w, x, shapes={})


ACTIVATIONS = ["Elu", "HardSigmoid", "LeakyRelu", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh"]


@pytest.mark.parametrize("activation", [*ACTIVATIONS, "ThresholdedRelu"])
def test_fused_gemm(activation):
    parameters = {"activation_alpha": 0.3, "activation_beta": 0.4, "activation_gamma": 0.9}
    for bias, flipped in ((normal(5), 0), (normal(3, 5), 1)):
        original = contrib(
            "FusedGemm", ["x", "w", "b"], alpha=0.5, beta=2.0, transB=flipped, activation=activation, **parameters
        )
        w = normal(*((5, 4) if flipped else (4, 5)))
        check(original, {"w": w, "b": bias}, {"x": normal(3, 4, seed=1)})


@pytest.mark.parametrize("addend", [False, True])
@pytest.mark.parametrize(
    ("activation", "parameters"),
    [
        (None, None),
        ("Relu", None),
        ("Tanh", None),
        ("Sigmoid", None),
        ("LeakyRelu", [0.1]),
        ("Clip", [-0.5, 0.5]),
        ("HardSigmoid", [0.3, 0.4]),
    ],
)
def test_fused_conv(activation, parameters, addend):
    original = contrib(
        "FusedConv",
        ["x", "w", "b", "z"][: 3 + addend],
        group=2,
        pads=[1, 0, 1, 1],
        strides=[1, 2],
        activation=activation,
        activation_params=parameters,
    )
    feeds = {"x": normal(2, 4, 5, 5, seed=1)}
    if addend:
        feeds["z"] = normal(2, 4, 5, 2, seed=2)
    check(original, {"w": normal(4, 2, 3, 3), "b": normal(4)}, feeds)


def test_fused_activations_that_are_not_known():
    w = {"w": normal(4, 4, 1)}
    odd = contrib("FusedConv", ["x", "w"], activation="Swish")
    assert reason(odd, w) == "activation 'Swish' is not mapped"
    assert reason(contrib("FusedGemm", ["x", "w"], activation="Swish"), w) == "activation 'Swish' is not mapped"
    short = contrib("FusedConv", ["x", "w"], activation="Clip", activation_params=[1.0])
    with pytest.raises(ModelError, match=r"node 'layer' \(FusedConv\): activation_params \[1.0\] of Clip; it takes 2"):
        REWRITERS["FusedConv"](short, scope(w))


@pytest.mark.parametrize(
    ("bits", "zeros"),
    [(2, None), (2, np.uint8), (4, None), (4, np.uint8), (4, np.float32), (8, None), (8, np.uint8)],
)
@pytest.mark.parametrize("n_in", [64, 72])
def test_matmulnbits(bits, zeros, n_in):
    n_out, block = 6, 32
    blocks = -(-n_in // block)
    constants = {
        "w": np.random.default_rng(0).integers(0, 256, (n_out, blocks, block * bits // 8)).astype(np.uint8),
        "s": uniform(n_out, blocks),
        "b": normal(n_out),
    }
    if zeros == np.uint8:
        constants["z"] = np.random.default_rng(1).integers(0, 256, (n_out, -(-blocks * bits // 8))).astype(np.uint8)
    elif zeros:
        constants["z"] = 8 * uniform(n_out, blocks, seed=1)
    original = contrib(
        "MatMulNBits", ["x", "w", "s", "z" if zeros else "", "", "b"], N=n_out, K=n_in, bits=bits, block_size=block
    )
    check(original, constants, {"x": normal(2, 3, n_in)})


def test_matmulnbits_in_float16():
    constants = {"w": integers(np.uint8, 6, 2, 16), "s": uniform(6, 2).astype(np.float16)}
    original = contrib("MatMulNBits", ["x", "w", "s"], N=6, K=64, bits=4, block_size=32)
    draft = check(original, constants, {"x": normal(3, 64, dtype=np.float16)}, rtol=4e-3)
    assert {value.dtype for value in draft.constants.values()} == {np.dtype(np.float16)}


def test_matmulnbits_that_is_wrong():
    constants = {"w": integers(np.uint8, 6, 2, 16), "s": uniform(6, 2), "g": np.zeros(64, np.int32)}
    sizes = {"N": 6, "K": 64, "bits": 4, "block_size": 32}
    rewrite = REWRITERS["MatMulNBits"]
    for changed, message in (
        ({"K": 96}, "B holds 192 values; N, K, bits and block_size ask for 288"),
        ({"bits": 3}, "bits 3.*bits 2, 4 or 8"),
        ({"block_size": 24}, "block_size 24.*power of 2"),
    ):
        original = contrib("MatMulNBits", ["x", "w", "s"], **(sizes | changed))
        with pytest.raises(ModelError, match=rf"model\.onnx: node 'layer' \(MatMulNBits\): .*{message}"):
            rewrite(original, scope(constants))
    assert "g_idx" in reason(contrib("MatMulNBits", ["x", "w", "s", "", "g"], **sizes), constants)
    assert "packed for another" in reason(
        contrib("MatMulNBits", ["x", "w", "s"], weight_prepacked=1, **sizes), constants
    )
    assert reason(contrib("MatMulNBits", ["x", "v", "s"], **sizes), constants) == "weights are not constant"


QUANTISED = [(np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8)]


@pytest.mark.parametrize("lead", [(), (2,)])
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize(("kind", "w_kind"), QUANTISED)
def test_integers_to_float(kind, w_kind, per_column, lead):
    many = ((*lead, 1, 5) if lead else (5,)) if per_column else ()
    constants = {
        "w": integers(w_kind, *lead, 4, 5),
        "as": np.float32(0.3),
        "bs": uniform(*many),
        "az": integers(kind),
        "bz": integers(w_kind, *many, seed=1),
        "b": normal(5),
    }
    x = integers(kind, *lead, 3, 4, seed=2)
    original = contrib("MatMulIntegerToFloat", ["x", "w", "as", "bs", "az", "bz", "b"])
    check(original, constants, {"x": x})
    moved = {key: constants[key] for key in ("as", "az")}
    check(original, {key: constants[key] for key in constants.keys() - moved.keys()}, {"x": x} | moved)
    if kind == np.uint8:
        original = contrib("DynamicQuantizeMatMul", ["x", "w", "bs", "bz", "b"])
        check(original, {key: constants[key] for key in ("w", "bs", "bz", "b")}, {"x": normal(2, 3, 4)})


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize(("kind", "w_kind"), QUANTISED)
def test_qgemm(kind, w_kind, per_column, trans_a, trans_b, quantised):
    many = (5,) if per_column else ()
    constants = {
        "as": np.float32(0.3),
        "az": integers(kind),
        "w": integers(w_kind, *((5, 4) if trans_b else (4, 5))),
        "bs": uniform(*many),
        "bz": integers(w_kind, *many, seed=1),
        "c": np.random.default_rng(3).integers(-2000, 2000, 5).astype(np.int32),
    }
    if quantised:
        constants |= {"ys": np.float32(20), "yz": integers(kind, seed=4)}
    original = contrib("QGemm", ["x", *constants], transA=trans_a, transB=trans_b, alpha=0.7)
    x = integers(kind, *((4, 3) if trans_a else (3, 4)), seed=2)
    check(original, constants, {"x": x}, rtol=None if quantised else 1e-6)
    moved = {key: constants.pop(key) for key in ("as", "c")}
    check(original, constants, {"x": x} | moved, rtol=None if quantised else 1e-6)


def test_products_of_16_bits_wrap_around():
    rng = np.random.default_rng(0)
    w, x = (rng.integers(-32768, 32767, shape).astype(np.int16) for shape in ((9, 5), (3, 9)))
    check(contrib("MatMulInteger16", ["x", "w"]), {"w": w}, {"x": x}, rtol=None)
    assert "uint16" in reason(contrib("MatMulInteger16", ["x", "w"]), {"w": w.astype(np.uint16)})


def test_convolution_with_channels_last():
    names = ["x", "s", "z", "w", "s", "v", "s", "z"]
    constants = {"s": np.float32(0.1), "z": np.uint8(3), "w": integers(np.int8, 4, 3, 2, 2), "v": np.int8(0)}
    assert "channels are last" in reason(contrib("QLinearConv", names, channels_last=1), constants)
    feeds = {"x": integers(np.uint8, 1, 3, 4, 4)}
    original = contrib("QLinearConv", names, channels_last=0)
    expected = digital([node("QLinearConv", names)], arrays(constants), feeds, ["y"])
    check(original, constants, feeds, rtol=None, expected=expected)


MASKS = {
    "none": None,
    "ends": np.array([2, 3], np.int32),
    "raw": np.array([[1, 1, 0], [1, 1, 1]], np.int32),
    "each": np.random.default_rng(0).integers(0, 2, (BATCH, LENGTH, LENGTH)).astype(np.int32),
    "packed": np.array([2, 3, 0, 3, 6, 0, 3, 6], np.int32),
}


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("op", ["Attention", "QAttention"])
def test_attention(op, mask, past, causal):
    feeds, value = {}, MASKS[mask]
    if value is not None:
        if past and value.ndim > 1:
            value = np.concatenate([np.ones((*value.shape[:-1], BEFORE), np.int32), value], axis=-1)
        feeds["m"] = value
    if past:
        feeds["p"] = normal(2, BATCH, HEADS, BEFORE, WIDTH, seed=3)
    columns = 3 * HEADS * WIDTH
    constants = {"b": normal(columns, seed=1)}
    mask_name, past_name = ("m" if "m" in feeds else ""), ("p" if past else "")
    if op == "Attention":
        inputs = ["x", "w", "b", mask_name, past_name]
        constants["w"], feeds["x"] = normal(SIZE, columns), normal(BATCH, LENGTH, SIZE, seed=2)
    else:
        inputs = ["x", "w", "b", "xs", "ws", mask_name, "xz", "wz", past_name]
        constants |= {"w": integers(np.int8, SIZE, columns), "wz": integers(np.int8, columns, seed=1)}
        constants |= {"xs": np.float32(0.02), "ws": uniform(columns) / 50, "xz": np.uint8(60)}
        feeds["x"] = integers(np.uint8, BATCH, LENGTH, SIZE, seed=2)
    outputs = ("y", "present") if past else ("y",)
    check(contrib(op, inputs, outputs, num_heads=HEADS, unidirectional=causal, scale=0.4), constants, feeds, rtol=2e-6)


def test_attention_that_hands_out_its_keys():
    constants = {"w": normal(SIZE, 3 * HEADS * WIDTH), "b": normal(3 * HEADS * WIDTH, seed=1)}
    original = contrib("Attention", ["x", "w", "b"], ("y", "present"), num_heads=HEADS)
    check(original, constants, {"x": normal(BATCH, LENGTH, SIZE, seed=2)})


def test_attention_with_other_widths_and_an_addend():
    sizes = [HEADS * WIDTH, HEADS * WIDTH, 6]
    constants = {"w": normal(SIZE, sum(sizes)), "b": normal(sum(sizes), seed=1)}
    feeds = {"x": normal(BATCH, LENGTH, SIZE, seed=2), "a": normal(BATCH, HEADS, LENGTH, LENGTH, seed=3)}
    original = contrib("Attention", ["x", "w", "b", "", "", "a"], num_heads=HEADS, qkv_hidden_sizes=sizes)
    check(original, constants, feeds)


def test_attention_that_stays():
    w, x = {"w": normal(SIZE, 24), "b": normal(24)}, {"x": normal(BATCH, LENGTH, SIZE)}

    def of(**attributes):
        return contrib("Attention", ["x", "w", "b", "m"], num_heads=HEADS, **attributes)

    for attribute in ("do_rotary", "past_present_share_buffer"):
        assert attribute in reason(of(**{attribute: 1}), w, x)
    for shape, words in (
        ((2 * BATCH,), "its mask has starts and ends"),
        ((BATCH, 1, 8, 8), "its mask has 4 axes"),
        ((None,), "the form of its mask 'm' is not known"),
        (None, "the form of its mask 'm' is not known"),
    ):
        shapes = {"x": x["x"].shape} | ({} if shape is None else {"m": shape})
        assert reason(of(), w, x, shapes=shapes) == words
    assert reason(contrib("Attention", ["x", "w", "b"], num_heads=HEADS), {}) == "weights are not constant"
    with pytest.raises(ModelError, match=r"24 columns of weights, qkv_hidden_sizes \[8, 8, 8\], num_heads 3"):
        REWRITERS["Attention"](contrib("Attention", ["x", "w", "b"], num_heads=3), scope(w, x))
