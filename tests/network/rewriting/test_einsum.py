from __future__ import annotations

import numpy as np
import pytest
from drafts import compare, conformance, crossbars, node, refused, scope
from hypothesis import given, settings
from hypothesis import strategies as st

from xbarsim.errors import ModelError
from xbarsim.network.rewriting import einsum
from xbarsim.network.rewriting.einsum import rewrite_einsum

SIZES = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 2, "h": 2, "i": 3, "j": 4, "k": 5, "l": 2, "m": 3, "B": 2, "X": 3}


def operands(equation, *, seed=0, dots=(3, 2), dtype=np.float32):
    """Random operands of an equation, whose ellipses stand for axes of these sizes."""
    rng = np.random.default_rng(seed)
    found = []
    for term in equation.replace(" ", "").partition("->")[0].split(","):
        shape = []
        before, dotted, after = term.partition("...")
        shape = [SIZES[item] for item in before] + list(dots if dotted else ()) + [SIZES[item] for item in after]
        found.append(rng.standard_normal(shape).astype(dtype))
    return found


def parted(values, at):
    """Names of the inputs, the constants and the one that varies."""
    names = [f"w{number}" for number in range(len(values))]
    names[at] = "x"
    constants = {name: value for name, value in zip(names, values, strict=True) if name != "x"}
    return names, constants, {"x": values[at]}


PAIRS = [
    "ij,jk->ik", "ij,jk", "ba,ca", "bij,jk->ikb", "bij,bjk->bik", "bhid,bhjd->bhij", "...ij,jk->...ik",
    "ij...,jk->ik...", "i...j,jk->...ik", "...ij,...jk->...ik", "...ij,...jk", "abcd,cde->abe", "bcd,cde->be",
    "abc,abc->", "abc,cd->a", "abc,cde->abd", "ij,jk->", " B i j , j k -> B i k", "XB,Bj->Xj", "bhid,hdk->bihk",
    "bijk,ij->bk", "mbhd,hdk->mbk", "i,i->", "i,i", "i,ij->j", "ij,j->i", "jmi,jk->kmi", "abchd,hdk->bcahk",
    "cdbhi,hij->cdbhj",
]  # fmt: skip


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("equation", PAIRS)
def test_one_activation_and_one_constant(equation, at):
    names, constants, feeds = parted(operands(equation), at)
    original = node("Einsum", names, equation=equation)
    shapes = [None, {"x": (None,) * feeds["x"].ndim}, *([] if "..." in equation else [{}])]
    for known in shapes:
        compare(rewrite_einsum, original, constants, feeds, shapes=known, rtol=2e-6)


@st.composite
def contractions(draw):
    """An equation that contracts something, and shapes: some axes of size 1 go with any size."""
    letters = iter(draw(st.permutations("abcdefgh")))
    kinds = {key: [next(letters) for _ in range(draw(st.integers(low, high)))] for key, low, high in (
        ("both", 0, 2), ("inner", 1, 2), ("x", 0, 2), ("w", 0, 1), ("lone x", 0, 1)
    )}  # fmt: skip
    lone = draw(st.booleans()) and len(kinds["w"])
    x = draw(st.permutations(kinds["both"] + kinds["inner"] + kinds["x"] + kinds["lone x"]))
    w = draw(st.permutations(kinds["both"] + kinds["inner"] + kinds["w"]))
    out = draw(st.permutations(kinds["both"] + kinds["x"] + ([] if lone else kinds["w"])))
    size = {item: draw(st.integers(1, 3)) for item in "abcdefgh"}
    shapes = [[size[item] if draw(st.integers(0, 7)) else 1 for item in term] for term in (x, w)]
    known = [n if draw(st.booleans()) else None for n in shapes[0]]
    return f"{''.join(x)},{''.join(w)}->{''.join(out)}", shapes, known


@given(contractions(), st.booleans(), st.sampled_from([np.float32, np.float64]))
@settings(max_examples=200, deadline=None)
def test_every_contraction_is_that_of_numpy(drawn, first, dtype):
    equation, shapes, known = drawn
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    if not first:
        left, _, right = equation.partition("->")
        equation = f"{','.join(reversed(left.split(',')))}->{right}"
    expected = np.einsum(equation, *([x, w] if first else [w, x]))
    known = [1 if actual == 1 else n for actual, n in zip(x.shape, known, strict=True)]  # 1 may meet any size
    original = node("Einsum", ["x", "w"] if first else ["w", "x"], equation=equation)
    compare(
        rewrite_einsum, original, {"w": w}, {"x": x},
        expected=[np.asarray(expected)], rtol=2e-6, shapes={"x": tuple(known)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("equation", "at", "layers"),
    [
        ("ij,jk,kl->il", 0, 1),
        ("ij,jk,kl->il", 2, 1),
        ("ij,jk,kl->il", 1, 2),
        ("ij,jk,k->i", 0, 1),
        ("ij,jk,->ik", 0, 1),
        (",ij,jk->ik", 1, 1),
        ("hij,hjk,kl->hil", 1, 2),
        ("bij,bj,jk->bik", 0, 1),
        ("...ij,jk,kl->...il", 0, 1),
    ],
)
def test_several_constants(equation, at, layers):
    names, constants, feeds = parted(operands(equation), at)
    draft = compare(
        rewrite_einsum, node("Einsum", names, equation=equation), constants, feeds, rtol=5e-6, layers=layers
    )
    assert len({item.name for item in crossbars(draft)}) == layers


def test_a_diagonal_of_the_constant_is_taken_beforehand():
    names, constants, feeds = parted(operands("ij,jjk->ik"), 0)
    compare(rewrite_einsum, node("Einsum", names, equation="ij,jjk->ik"), constants, feeds, rtol=1e-6)


def test_float16_stays_float16():
    names, constants, feeds = parted(operands("bij,bjk->bik", dtype=np.float16), 0)
    draft = compare(rewrite_einsum, node("Einsum", names, equation="bij,bjk->bik"), constants, feeds, rtol=4e-3)
    assert {value.dtype for value in draft.constants.values()} == {np.dtype(np.float16), np.dtype(np.int64)}


@pytest.mark.parametrize(
    ("equation", "reason"),
    [
        ("ij,ij->ij", "no matrix product"),
        ("ij,kl->ijkl", "no matrix product"),
        ("i,i->i", "no matrix product"),
        ("ij->ji", "no matrix product"),
        ("iij,jk->ik", "it takes the diagonal of 'x'"),
    ],
)
def test_what_is_no_product(equation, reason):
    values = [np.ones([3] * len(term), np.float32) for term in equation.partition("->")[0].split(",")]
    names, constants, feeds = parted(values, 0)
    assert refused(rewrite_einsum, node("Einsum", names, equation=equation), constants, feeds) == reason


def test_other_reasons(monkeypatch):
    w = np.ones((4, 5), np.float32)
    original = node("Einsum", ["x", "w"], equation="...j,jk->...k")
    assert refused(rewrite_einsum, original, {"w": w}) == "the rank of 'x' is not known"
    assert refused(rewrite_einsum, original, {}) == "Einsum of 2 activations"
    assert "weights of type int32" in refused(rewrite_einsum, original, {"w": w.astype(np.int32)})
    assert rewrite_einsum(original, scope({"x": w, "w": w})) is None
    monkeypatch.setattr(einsum, "_LARGEST", 15)
    names, constants, feeds = parted(operands("ij,jk,kl->jkl"), 0)
    several = node("Einsum", names, equation="ij,jk,kl->jkl")
    assert refused(rewrite_einsum, several, constants, feeds) == "its constants together are too large"
    smaller = node("Einsum", names, equation="ij,jk,kl->il")  # k is summed over beforehand: 8 elements
    compare(rewrite_einsum, smaller, constants, feeds, rtol=2e-6)


@pytest.mark.parametrize(
    ("equation", "message"),
    [
        ("ij->ij", r"equation 'ij->ij' has 1 operands; the node has 2 inputs"),
        ("ij,j1->i", r"'j1' is not made of letters and at most one '\.\.\.'"),
        ("i......,jk->ik", "at most one"),
        ("ij,jk->iz", "'z' of the result is in no operand"),
        ("ij,jk->ii", "'i' of the result is in no operand, or twice"),
        ("ijk,jk->i", "input 0 has 2 axes; its indices are 'ijk'"),
        ("i,jk->i", "input 0 has 2 axes; its indices are 'i'"),
        ("...j,jk->k", r"the result has no '\.\.\.', which stands for 1 axes"),
        ("ij,ik->jk", "one index has the sizes 3 and 4; an index has one size, or 1"),
    ],
)
def test_wrong_equations(equation, message):
    constants, feeds = {"w": np.ones((4, 5), np.float32)}, {"x": np.ones((3, 4), np.float32)}
    with pytest.raises(ModelError, match=rf"model\.onnx: node 'layer' \(Einsum\).*{message}"):
        rewrite_einsum(node("Einsum", ["x", "w"], equation=equation), scope(constants, feeds))


@pytest.mark.parametrize("side", [0, 1])
def test_conformance(side):
    rewritten = set()
    for name, original, inputs, outputs in conformance("Einsum"):
        if len(original.input) < 2 or "bfloat16" in name:
            continue
        key = original.input[side]
        constants = {key: inputs.pop(key)}
        compare(rewrite_einsum, original, constants, inputs, expected=outputs, rtol=1e-6)
        rewritten.add(name)
    assert rewritten >= {"test_einsum_inner_prod", "test_einsum_batch_matmul"}
