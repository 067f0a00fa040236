from __future__ import annotations

import numpy as np
import pytest
from drafts import compare, conformance, crossbars, digital, node, refused, scope
from hypothesis import given, settings
from hypothesis import strategies as st

from xbarsim.errors import ModelError
from xbarsim.network.rewriting.stacked import rewrite_matmul

RTOL = {np.float16: 4e-3, np.float32: 1e-6, np.float64: 1e-6}


def normal(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@st.composite
def products(draw):
    """Shapes of both sides of a product, whose leading axes meet, and what is known of the one that varies."""
    lead = draw(st.lists(st.integers(1, 3), max_size=3))

    def side():
        own = [size if draw(st.booleans()) else 1 for size in lead]
        return own[draw(st.integers(0, len(own))) :]

    rows, inner, columns = (draw(st.integers(1, 4)) for _ in range(3))
    a = [*side(), rows, inner] if draw(st.integers(0, 4)) else [inner]
    b = [*side(), inner, columns] if draw(st.integers(0, 4)) else [inner]
    left = draw(st.booleans())
    known = [size if draw(st.booleans()) else None for size in (b if left else a)]
    return a, b, left, known


@given(products(), st.sampled_from([np.float16, np.float32, np.float64]))
@settings(max_examples=150, deadline=None)
def test_any_constant_side_of_a_matmul(shapes, dtype):
    a, b, left, known = shapes
    values = {"a": normal(*a, dtype=dtype), "b": normal(*b, seed=1, dtype=dtype)}
    fixed = "a" if left else "b"
    constants = {fixed: values.pop(fixed)}
    varying = next(iter(values))
    original = node("MatMul", ["a", "b"])
    shapes = {varying: tuple(known)}
    if constants[fixed].ndim == 2:
        assert rewrite_matmul(original, scope(constants, values, shapes=shapes)) is None
        return
    draft = compare(rewrite_matmul, original, constants, values, shapes=shapes, rtol=RTOL[dtype])
    assert all(draft.constants[name].dtype == dtype for name in draft.constants if "weights" in name)


@pytest.mark.parametrize(
    ("x", "w", "op", "groups"),
    [
        ((7, 4), (1, 4, 5), "MatMul", None),
        ((2, 3, 4), (1, 4, 5), "MatMul", None),
        ((7, 4), (3, 4, 5), "MatMul", None),  # all matrices see the same values: one wide matrix
        ((6, 3, 7, 4), (3, 4, 5), "Conv", 3),
        ((6, 2, 3, 7, 4), (2, 3, 4, 5), "Conv", 6),
    ],
)
def test_the_layer_that_it_becomes(x, w, op, groups):
    draft = compare(rewrite_matmul, node("MatMul", ["x", "w"]), {"w": normal(*w)}, {"x": normal(*x)}, rtol=1e-6)
    (layer,) = crossbars(draft)
    assert layer.op_type == op
    assert next((item.i for item in layer.attribute if item.name == "group"), None) == groups


def test_samples_stay_first():
    x, w = normal(6, 3, 7, 4), normal(3, 4, 5)
    draft = compare(rewrite_matmul, node("MatMul", ["x", "w"]), {"w": w}, {"x": x}, rtol=1e-6)
    (layer,) = crossbars(draft)
    (found,) = digital(draft.nodes, draft.constants, {"x": x}, [layer.input[0]])
    np.testing.assert_array_equal(found, x.transpose(0, 1, 3, 2).reshape(6, 12, 7))


def test_a_vector_needs_no_rank_on_the_right():
    original, x, w = node("MatMul", ["x", "w"]), normal(2, 3, 4), normal(4)
    compare(rewrite_matmul, original, {"w": w}, {"x": x}, shapes={}, rtol=1e-6)
    reason = refused(rewrite_matmul, node("MatMul", ["w", "x"]), {"w": w}, {"x": x}, shapes={})
    assert reason == "the rank of 'x' is not known"
    reason = refused(rewrite_matmul, original, {"w": normal(2, 4, 4)}, {"x": x}, shapes={})
    assert reason == "the rank of 'x' is not known"


def test_sizes_that_are_not_known_are_checked_when_it_runs():
    """Reshaping must not hide that 8 values a row meet matrices with 4."""
    original = node("MatMul", ["x", "w"])
    draft = rewrite_matmul(original, scope({"w": normal(2, 4, 5)}, shapes={"x": (None, None, None)}))
    with pytest.raises(Exception, match="Expand"):
        digital(draft.nodes, draft.constants, {"x": normal(2, 3, 8)}, ["y"])


def test_constants_that_are_not_weights():
    original = node("MatMul", ["x", "w"])
    assert "weights of type int32" in refused(rewrite_matmul, original, {"w": np.ones((2, 4, 5), np.int32)})
    assert refused(rewrite_matmul, original, {"w": np.ones((2, 0, 5), np.float32)}) == "weights are empty"
    assert refused(rewrite_matmul, original, {"w": np.float32(2)}) == "weights have no axes"
    assert rewrite_matmul(original, scope({})) is None
    assert rewrite_matmul(original, scope({"x": normal(2, 3, 4), "w": normal(2, 4, 5)})) is None
    with pytest.raises(ModelError, match="tensor 'w' holds 1 NaN"):
        rewrite_matmul(original, scope({"w": np.full((1, 1, 1), np.nan, np.float32)}))


@pytest.mark.parametrize(
    ("x", "w", "message"),
    [
        ((2, 3, 5), (2, 4, 5), r"\(MatMul\): 'x' of shape \[2, 3, 5\] does not fit .* \[2, 4, 5\]: 5 values meet 4"),
        ((2, 3, 1), (2, 4, 5), "1 values meet 4"),
        ((3, 3, 4), (2, 4, 5), "shared axes must agree"),
        ((), (2, 4, 5), "'x' is a scalar"),
    ],
)
def test_shapes_that_do_not_meet(x, w, message):
    with pytest.raises(ModelError, match=rf"model\.onnx: node 'layer'.*{message}"):
        rewrite_matmul(node("MatMul", ["x", "w"]), scope({"w": normal(*w)}, {"x": normal(*x)}))


@pytest.mark.parametrize("side", [0, 1])
def test_conformance(side):
    rewritten = 0
    for _, original, inputs, outputs in conformance("MatMul"):
        names = list(original.input)
        constants = {names[side]: inputs.pop(names[side])}
        kind = constants[names[side]].dtype.type
        if kind not in RTOL or constants[names[side]].ndim == 2:
            continue
        compare(rewrite_matmul, original, constants, inputs, expected=outputs, rtol=RTOL[kind])
        rewritten += 1
    assert rewritten >= 5
