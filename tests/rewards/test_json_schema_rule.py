"""The part of JSON Schema that is checked, against cases from its specification."""

from __future__ import annotations

from typing import Any

import pytest
from answers import answer

from trueup.errors import UserError
from trueup.rewards.rules import make_rule

POINT = {
    "title": "a point",
    "type": "object",
    "properties": {"x": {"type": "number"}, "tags": {"type": "array", "items": {"enum": ["a", 1, None]}}},
    "required": ["x"],
    "additionalProperties": False,
}


def fits(text: str, schema: dict[str, Any]) -> bool:
    return make_rule("json_schema", {"schema": schema}).score([answer(text)]) == [1.0]


@pytest.mark.parametrize("text", ['{"x": 1}', ' {"x": -2.5, "tags": []}\n', '{"x": 0, "tags": ["a", 1, 1.0, null]}'])
def test_what_fits(text: str) -> None:
    assert fits(text, POINT)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"x": "1"}',
        '{"x": true}',
        '{"x": 1, "y": 2}',
        '{"x": 1, "tags": "a"}',
        '{"x": 1, "tags": ["b"]}',
        '{"x": 1, "tags": [true]}',
        "[1]",
        '{"x": 1} and more',
        "{'x': 1}",
        '{"x": NaN}',
        '{"x": ' + "9" * 5000 + "}",
        "[" * 100_000,
        "",
    ],
    ids=lambda text: text[:20],
)
def test_what_does_not(text: str) -> None:
    assert not fits(text, POINT)


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        ("object", ["{}"]),
        ("array", ["[]"]),
        ("string", ['""']),
        ("number", ["1", "1.0", "1.5"]),
        ("integer", ["1", "1.0"]),
        ("boolean", ["true"]),
        ("null", ["null"]),
    ],
)
def test_types(kind: str, texts: list[str]) -> None:
    everything = ["{}", "[]", '""', "1", "1.0", "1.5", "true", "null"]
    assert [text for text in everything if fits(text, {"type": kind})] == texts
    assert all(fits(text, {"type": [kind, "null"]}) for text in [*texts, "null"])


def test_keywords_say_nothing_of_other_types() -> None:
    """``properties`` alone lets an array pass, as the specification has it."""
    assert fits("[1]", {"properties": {"x": {"type": "string"}}, "required": ["x"], "additionalProperties": False})
    assert fits('{"a": 1}', {"items": {"type": "string"}})


def test_equality_in_enum_is_that_of_json() -> None:
    schema = {"enum": [{"a": [1, False]}]}
    assert fits('{"a": [1.0, false]}', schema)
    assert not fits('{"a": [1, 0]}', schema) and not fits('{"a": [true, false]}', schema)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"minimum": 1}, "'minimum' is not among"),
        ({"type": "int"}, "schema.type: 'int'"),
        ({"properties": {"a": {"items": {"requird": ["x"]}}}}, r"schema.properties.a.items: .*'required'"),
        ({"items": [{}]}, "schema.items"),
        ({"enum": []}, "schema.enum"),
        ({"required": "x"}, "schema.required"),
    ],
)
def test_what_would_not_be_checked_is_refused(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_rule("json_schema", {"schema": schema})
