"""Specifications: dotted changes, and errors in one line that name the field, the value and what is valid."""

from __future__ import annotations

import copy
import math
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from xbarsim.errors import ChipError
from xbarsim.spec import Count, Probability, Siemens, Spec, Volt, declared, explain, override


class Round(Spec):
    kind: Literal["round"] = "round"
    radius: Siemens
    colour: str = "red"


class Square(Spec):
    kind: Literal["square"] = "square"
    side: Siemens
    colour: str = "red"


Shape = Annotated[Round | Square, Field(discriminator="kind")]


class Leaf(Spec):
    shape: Shape = Round(radius=1.0)
    maybe: Shape | None = None
    n: Count = 1


class Tree(Spec):
    leaf: Leaf = Leaf()
    p: Probability = 0.0
    v: Volt
    either: Siemens | Annotated[tuple[Siemens, Siemens], Field(description="[S], lowest and highest")] = 1.0
    many: tuple[Siemens, ...] = ()


BASE = {"leaf": {"shape": {"kind": "round", "radius": 2.0, "colour": "blue"}, "n": 3}, "p": 0.5, "v": 1.0}


def changed(**changes):
    return override(Tree, BASE, {key.replace("__", "."): value for key, value in changes.items()})


def error_of(data, origin=""):
    with pytest.raises(ValidationError) as caught:
        Tree.model_validate(data)
    return explain(Tree, data, caught.value, origin)


# -- specifications ----------------------------------------------------------------------------------------------------


def test_a_specification_is_frozen_strict_and_keyword_only():
    tree = Tree(v=1.0)
    with pytest.raises(ValidationError, match="frozen"):
        tree.v = 2.0
    with pytest.raises(TypeError):
        Tree(1.0)
    for bad in (math.nan, math.inf, -math.inf, "1", True, None, -1.0, 0.0):
        with pytest.raises(ValidationError):
            Tree(v=bad)
    with pytest.raises(ValidationError, match="Extra inputs"):
        Tree(v=1.0, w=1.0)
    assert Tree(v=1) == Tree(v=1.0)


# -- dotted changes ----------------------------------------------------------------------------------------------------


def test_a_change_sets_one_field_and_leaves_the_tree_alone():
    before = copy.deepcopy(BASE)
    assert changed(leaf__n=7) == {**BASE, "leaf": {**BASE["leaf"], "n": 7}}
    assert changed(p=0.1)["p"] == 0.1
    assert changed() == BASE
    changed(leaf__shape__kind="square")["leaf"]["shape"]["new"] = 1
    assert before == BASE


def test_a_change_of_kind_keeps_shared_fields_and_drops_the_others():
    assert changed(leaf__shape__kind="square")["leaf"]["shape"] == {"kind": "square", "colour": "blue"}
    assert changed(leaf__shape__kind="round")["leaf"]["shape"] == BASE["leaf"]["shape"]


@pytest.mark.parametrize("order", [("kind", "side"), ("side", "kind")])
def test_a_change_of_kind_comes_before_changes_of_its_fields(order):
    values = {"kind": "square", "side": 4.0}
    changes = {f"leaf.shape.{name}": values[name] for name in order}
    assert override(Tree, BASE, changes)["leaf"]["shape"] == {"kind": "square", "side": 4.0, "colour": "blue"}


@pytest.mark.parametrize("order", [1, -1])
def test_a_section_is_set_before_its_fields(order):
    square = {"kind": "square", "side": 4.0}
    changes = {"leaf.shape": square, "leaf.shape.side": 5.0, "leaf": {"n": 7}}
    found = override(Tree, BASE, dict(list(changes.items())[::order]))
    assert found["leaf"] == {"n": 7, "shape": {"kind": "square", "side": 5.0}}
    assert square == {"kind": "square", "side": 4.0}  # a change that others share stays as it is


def test_a_missing_section_is_made():
    assert changed(leaf__maybe__kind="round", leaf__maybe__radius=1.0)["leaf"]["maybe"] == {
        "kind": "round",
        "radius": 1.0,
    }
    assert override(Tree, {"v": 1.0}, {"leaf.n": 2}) == {"v": 1.0, "leaf": {"n": 2}}


def test_none_restores_the_default():
    assert "p" not in changed(p=None)
    assert "shape" not in changed(leaf__shape=None)["leaf"]
    assert Tree.model_validate(changed(leaf=None)).leaf == Leaf()
    assert changed(leaf__maybe=None)["leaf"] == BASE["leaf"]


def test_a_whole_section_can_be_set():
    assert changed(leaf__shape={"kind": "square", "side": 1.0})["leaf"]["shape"] == {"kind": "square", "side": 1.0}


@pytest.mark.parametrize("name", ["p.q", "leaf.n.x", "leaf.shape.radius.unit"])
def test_a_name_that_runs_through_a_value_is_refused(name):
    with pytest.raises(ChipError) as caught:
        override(Tree, BASE, {name: 1})
    where = name.rpartition(".")[0]
    value = {"p": 0.5, "leaf.n": 3, "leaf.shape.radius": 2.0}[where]
    assert str(caught.value) == f"{name}: {where} is the value {value!r}, not a section with fields"


NAMES = st.lists(
    st.sampled_from(["leaf", "shape", "kind", "n", "p", "v", "", "x", "radius"]), min_size=1, max_size=4
).map(".".join)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.dictionaries(NAMES, st.sampled_from([None, 1, 0.5, "square", "round", "x", {}, []]), max_size=3))
def test_any_changes_give_a_tree_or_one_line(changes):
    """Whatever is asked for, the answer is a valid specification or an error that is one line."""
    try:
        data = override(Tree, BASE, changes)
    except ChipError as error:
        text = str(error)
    else:
        try:
            Tree.model_validate(data)
            return
        except ValidationError as error:
            text = explain(Tree, data, error)
    assert text
    assert "\n" not in text
    assert "pydantic" not in text


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({**BASE, "q": 1}, "unknown field 'q'; valid fields: either, leaf, many, p, v"),
        ({**BASE, "leef": {}}, "unknown field 'leef'; valid fields: either, leaf, many, p, v (did you mean 'leaf'?)"),
        (
            {"v": 1.0, "leaf": {"shape": {"kind": "square", "side": 1.0, "radius": 1.0}}},
            "unknown field 'leaf.shape.radius'; valid fields of leaf.shape: colour, kind, side; "
            "it belongs to leaf.shape.kind = 'round'",
        ),
        ({"leaf": {}}, "v is missing"),
        ({"v": 1.0, "leaf": {"shape": {"kind": "round"}}}, "leaf.shape.radius is missing"),
        ({"v": 1.0, "leaf": {"maybe": {"kind": "round"}}}, "leaf.maybe.radius is missing"),
        (
            {"v": 1.0, "leaf": {"shape": {"kind": "oval"}}},
            "leaf.shape.kind = 'oval' is not valid; choose one of 'round', 'square'",
        ),
        (
            {"v": 1.0, "leaf": {"maybe": {"kind": "oval"}}},
            "leaf.maybe.kind = 'oval' is not valid; choose one of 'round', 'square'",
        ),
        (
            {"v": 1.0, "leaf": {"shape": {"radius": 1.0}}},
            "leaf.shape.kind is missing; choose one of 'round', 'square'",
        ),
        (
            {"v": 1.0, "leaf": {"n": 0}},
            "leaf.n = 0 is not valid: input should be greater than or equal to 1",
        ),
        ({"v": 1.0, "leaf": {"n": "1"}}, "leaf.n = '1' is not valid: input should be a valid integer"),
        ({"v": 1.0, "leaf": {"n": 1.5}}, "leaf.n = 1.5 is not valid: input should be a valid integer"),
        ({"v": 1.0, "leaf": 3}, "leaf = 3 is not valid: it is a section; set its fields, such as leaf.shape"),
    ],
)
def test_errors_name_the_field_the_value_and_what_is_valid(data, text):
    assert error_of(data) == text
    assert error_of(data, "chip.toml") == f"chip.toml: {text}"


@pytest.mark.parametrize(
    ("data", "text", "unit"),
    [
        ({"v": -1.0}, "v = -1.0 is not valid: input should be greater than 0", "[V]"),
        ({"v": 1.0, "p": 1.5}, "p = 1.5 is not valid: input should be less than or equal to 1", "1"),
        (
            {"v": 1.0, "leaf": {"shape": {"kind": "round", "radius": -1.0}}},
            "leaf.shape.radius = -1.0 is not valid: input should be greater than or equal to 0",
            "[S]",
        ),
    ],
)
def test_errors_of_physical_quantities_say_the_unit(data, text, unit):
    """Of a plain field as of a choice between kinds of values."""
    message = error_of(data)
    assert message.startswith(text)
    assert unit in message


@pytest.mark.parametrize("value", [-1.0, "a", [2.0], [1.0, -1.0], [1.0, 2.0, 3.0], {}])
def test_an_error_in_a_value_that_may_be_of_two_types_names_the_field(value):
    message = error_of({"v": 1.0, "either": value})
    assert message.startswith("either = ")
    assert "[S]" in message
    assert "\n" not in message


def test_more_errors_are_counted():
    message = error_of({"v": 1.0, "p": 2.0, "leaf": {"n": 0}})
    assert message.endswith(" (and 1 more)")
    assert message.startswith("leaf.n = 0 is not valid: ")


def test_an_entry_of_a_list_is_named_by_its_place():
    assert error_of({"v": 1.0, "many": [1.0, -2.0]}).startswith("many[1] = -2.0 is not valid: ")


def test_a_single_wrong_value_is_one_error_even_where_two_types_are_possible():
    """The alternatives of one field are not further mistakes."""
    assert "more)" not in error_of({"v": 1.0, "either": -1.0})


def test_what_is_declared_of_a_field():
    """In the sections that are there: kinds of one section may differ in a field's unit."""
    tree = Tree(v=1.0, leaf=Leaf(shape=Square(side=2.0)))
    assert declared(tree, "leaf.shape.side")[0] == "S"
    assert declared(tree, "v")[0] == "V"
    assert declared(tree, "p") == ("", "")
    for missing in ("leaf.shape.radius", "leaf.maybe.radius", "nothing", "v.n", ""):
        assert declared(tree, missing) == ("", "")
