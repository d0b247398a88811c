"""A small part of JSON Schema: type, properties, required, additionalProperties, items, enum.

It is the same on every machine, whatever else is installed. Keywords that assert nothing (``title``, ``description``
and the like) are allowed; every other one is refused, since a constraint that is not checked would be paid for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trueup.errors import UserError, nearest

_SILENT = frozenset({"$schema", "$id", "$comment", "title", "description", "default", "examples"})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "number": _is_number,
    "integer": lambda value: _is_number(value) and (isinstance(value, int) or value.is_integer()),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}


def satisfies(value: Any, schema: Mapping[str, Any]) -> bool:
    """Does a parsed JSON value keep to a schema that `check_schema` has let pass?"""
    return all(_KEYWORDS[word](value, wanted, schema) for word, wanted in schema.items() if word not in _SILENT)


def _type(value: Any, wanted: Any, schema: Mapping[str, Any]) -> bool:
    return any(_TYPES[name](value) for name in ([wanted] if isinstance(wanted, str) else wanted))


def _properties(value: Any, wanted: Any, schema: Mapping[str, Any]) -> bool:
    return not isinstance(value, dict) or all(satisfies(value[k], part) for k, part in wanted.items() if k in value)


def _required(value: Any, wanted: Any, schema: Mapping[str, Any]) -> bool:
    return not isinstance(value, dict) or all(name in value for name in wanted)


def _additional(value: Any, wanted: Any, schema: Mapping[str, Any]) -> bool:
    return wanted or not isinstance(value, dict) or value.keys() <= schema.get("properties", {}).keys()


def _items(value: Any, wanted: Any, schema: Mapping[str, Any]) -> bool:
    return not isinstance(value, list) or all(satisfies(item, wanted) for item in value)


def _enum(value: Any, wanted: Any, schema: Mapping[str, Any]) -> bool:
    return any(_same(value, allowed) for allowed in wanted)


_KEYWORDS: Mapping[str, Callable[[Any, Any, Mapping[str, Any]], bool]] = {
    "type": _type,
    "properties": _properties,
    "required": _required,
    "additionalProperties": _additional,
    "items": _items,
    "enum": _enum,
}
"""Keyword -> (value, what the keyword wants, the schema it is in) -> kept."""


def _same(one: Any, other: Any) -> bool:
    """Equality of JSON values: 1 is 1.0, but true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return one == other


def check_schema(schema: Any, where: str = "schema") -> None:
    """Refuse a schema that is no part of what `satisfies` checks; ``where`` is its place, for errors."""
    if not isinstance(schema, dict):
        raise UserError(f"{where}: a schema is a mapping, not {schema!r}")
    for word, wanted in schema.items():
        if word in _SILENT:
            continue
        if word not in _KEYWORDS:
            raise UserError(
                f"{where}: '{word}' is not among the keywords that are checked ({', '.join(_KEYWORDS)})"
                + nearest(word, _KEYWORDS)
            )
        if not _FORMS[word](wanted):
            raise UserError(f"{where}.{word}: {wanted!r} is not what this keyword takes")
    for name, part in schema.get("properties", {}).items():
        check_schema(part, f"{where}.properties.{name}")
    if "items" in schema:
        check_schema(schema["items"], f"{where}.items")


def _texts(wanted: Any) -> bool:
    return isinstance(wanted, list) and all(isinstance(name, str) for name in wanted)


_FORMS: Mapping[str, Callable[[Any], bool]] = {
    "type": lambda wanted: wanted in list(_TYPES) or (_texts(wanted) and bool(wanted) and set(wanted) <= set(_TYPES)),
    "properties": lambda wanted: isinstance(wanted, dict),
    "required": _texts,
    "additionalProperties": lambda wanted: isinstance(wanted, bool),
    "items": lambda wanted: isinstance(wanted, dict),
    "enum": lambda wanted: isinstance(wanted, list) and bool(wanted),
}
"""Keyword -> is this a value that it takes?"""
