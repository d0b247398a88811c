"""YAML files and dotted overrides become a validated configuration, or one clear line of what is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, TypeVar, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from trueup.errors import UserError, nearest

C = TypeVar("C", bound=BaseModel)


def load_config(schema: type[C], file: str | None, overrides: Mapping[str, Any]) -> C:
    """Read ``file`` (if given), lay ``overrides`` (dotted key -> value) over it, and validate.

    Raises:
        UserError: naming the file, the key and, for unknown keys, the nearest known one.
    """
    values = read_yaml(file) if file else {}
    for key, value in overrides.items():
        _put(values, key, value)
    return validate(schema, values, file or "the command line")


def validate(schema: type[C], values: Mapping[str, Any], origin: str) -> C:
    """Validate plain values against a schema; ``origin`` is named in errors."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        problems = _nearest_branches(schema, error.errors())
        raise UserError(f"{origin}: " + "; ".join(_explain(schema, problem) for problem in problems)) from None


def read_yaml(file: str) -> dict[str, Any]:
    """Read a YAML mapping, with file and line in every error."""
    path = Path(file)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{file}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(values, dict):
        raise UserError(f"{file}: expected sections (model, data, optim, run), found {_kind(values)}")
    return values


def parse_value(text: str, annotation: Any) -> Any:
    """A command-line value: as it stands where the setting is text (a folder may be called 2024), else as YAML does.

    ``null`` empties a setting that may be empty. A list of words needs no brackets: ``tensorboard,wandb``.
    """
    if annotation is str or (annotation == (str | None) and text != "null"):
        return text
    try:
        value = yaml.safe_load(text)
        return yaml.safe_load(f"[{text}]") if isinstance(value, str) and get_origin(annotation) is tuple else value
    except yaml.YAMLError:
        return text


def dump(config: BaseModel) -> str:
    """The resolved configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def leaves(schema: type[BaseModel], prefix: str = "", section: Any = None) -> dict[str, FieldInfo]:
    """Dotted key -> pydantic field, for every setting of a schema; ``section`` holds a recipe's own defaults."""
    out: dict[str, FieldInfo] = {}
    for name, field in schema.model_fields.items():
        default = field.default if section is None else getattr(section, name)
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            out.update(leaves(inner, f"{prefix}{name}.", default if isinstance(default, BaseModel) else None))
        else:
            out[prefix + name] = copy(field)
            out[prefix + name].default = default
    return out


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise UserError(f"--{key}: '{section}' is a value in the file, not a section")
    values[name] = value


def _nearest_branches(schema: type[BaseModel], problems: Sequence[Any]) -> list[Any]:
    """One problem for a setting that has several forms (a name or a mapping): that of the form that came furthest."""
    kept: dict[str, Any] = {}
    keys = leaves(schema)
    for problem in problems:
        path = [str(part) for part in problem["loc"]]
        setting = ".".join(path)
        if any(_FORM.fullmatch(part) for part in path):
            setting = next((key for n in range(1, len(path)) if (key := ".".join(path[:n])) in keys), setting)
        if setting not in kept or len(path) > len(kept[setting]["loc"]):
            kept[setting] = problem
    return list(kept.values())


_FORM = re.compile(r"str|int|float|bool|(constrained-|dict|list|tuple).*")
"""What pydantic calls the forms of a setting, in the place of a key."""


def _explain(schema: type[BaseModel], problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"] if not _FORM.fullmatch(str(part)))
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'{_nearest_key(key, _all_keys(schema))}"
    if problem["type"] == "missing":
        flag = next((name for name in leaves(schema) if name == key or name.startswith(f"{key}.")), None)
        return f"'{key}' is missing" + (f" (--{flag} VALUE)" if flag and "." in flag else "")
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {message} (got {problem['input']!r})" if key and problem["type"] != "value_error" else message


def _nearest_key(wrong: str, known: Sequence[str]) -> str:
    """The hint for a wrong dotted key: one of the same last name in another section, else the closest in spelling."""
    moved = [key for key in known if key.rpartition(".")[2] == wrong.rpartition(".")[2]]
    return f"; did you mean '{moved[0]}'?" if moved else nearest(wrong, known)


def _all_keys(schema: type[BaseModel]) -> list[str]:
    keys = list(leaves(schema))
    return keys + sorted({key.rsplit(".", 1)[0] for key in keys if "." in key})


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__
