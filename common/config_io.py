"""The configuration as nested mappings and as YAML, read back strictly: unknown keys and wrong types are refused."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from common.config import Config
from common.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Tree = TypeVar("_Tree", bound="DataclassInstance")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also reads `6e-4` as a number (YAML 1.1 takes it for a string)."""


def _unique_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    """A mapping as usual, but for a key that stands there twice: the first would be lost without a word."""
    keys = [key.value for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"{key} stands there twice", node.start_mark)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as nested dictionaries of numbers, strings and lists."""
    return _as_plain(dataclasses.asdict(config))


def from_dict(mapping: Mapping[str, Any], base: Config | None = None) -> Config:
    """`base` (the defaults, if none) with the mapping's values in place of its own; the mapping may name only some.

    Raises:
        UserError: a key is unknown or a value has the wrong type; the text names the dotted field.
    """
    return merge(mapping, Config() if base is None else base)


def to_yaml(config: Config) -> str:
    """The configuration as YAML, fields in their declared order."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: the file is missing, unreadable, no YAML, or holds no mapping.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no mapping of configuration fields")
    return content


def load_config(path: Path, base: Config | None = None) -> Config:
    """The configuration in a YAML file, over `base`.

    Raises:
        UserError: as `read_yaml` and `from_dict`; the text names the file.
    """
    mapping = read_yaml(path)
    try:
        return from_dict(mapping, base)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _as_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_plain(item) for item in value]
    return value


def merge(mapping: Mapping[str, Any], base: _Tree, prefix: str = "") -> _Tree:
    """Any tree of dataclasses with the mapping's values in place of its own.

    Args:
        mapping: nested values by field name; it may name only some.
        base: where the others come from.
        prefix: what stands before a field's dotted name in an error.

    Raises:
        UserError: a key is unknown or a value has the wrong type; the text names the dotted field.
    """
    hints = get_type_hints(type(base))
    changes = {}
    for key, value in mapping.items():
        dotted = f"{prefix}{key}"
        if key not in hints:
            close = difflib.get_close_matches(str(key), hints, n=1)
            raise UserError(f"unknown field {dotted}" + (f"; did you mean {prefix}{close[0]}?" if close else ""))
        current = getattr(base, key)
        if dataclasses.is_dataclass(current) and not isinstance(current, type):
            if not isinstance(value, Mapping):
                raise UserError(f"{dotted}: {value!r} is no mapping of fields")
            changes[key] = merge(value, current, prefix=f"{dotted}.")
        else:
            changes[key] = _checked(value, hints[key], dotted)
    return dataclasses.replace(base, **changes)


def _checked(value: Any, hint: Any, dotted: str) -> Any:
    """The value as the field's type; lists become tuples and whole numbers become floats, nothing else is converted."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value not in arguments:
            raise UserError(f"{dotted}: {value!r} is none of {', '.join(map(str, arguments))}")
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _checked(value, inner, dotted)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{dotted}: {value!r} is no list")
        return tuple(_checked(item, arguments[0], f"{dotted}[{index}]") for index, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise UserError(f"{dotted}: {value!r} is no mapping with names as keys")
        return {key: _checked(item, arguments[1], f"{dotted}.{key}") for key, item in value.items()}
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise UserError(f"{dotted}: a whole number of {value.bit_length()} bits is too large") from None
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        names = {int: "whole number", float: "number", bool: "true or false", str: "string"}
        raise UserError(f"{dotted}: {value!r} is no {names[hint]}")
    return value
