"""Whether JSON has the types that documents.py declares."""

import functools
import sys
import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

_NAMES = {int: "an integer", float: "a finite number", str: "text", bool: "true or false", type(None): "null"}
_LARGEST = sys.float_info.max
_MOST = 2**64  # what any integer of a run stays below


def fault(value: object, kind: Any, name: str = "") -> str:
    """What is wrong with a JSON value where `kind` is declared, naming the key as in radii[0]; empty if nothing."""
    return next(_faults(value, kind, name), "")


def _faults(value: object, kind: Any, name: str) -> Iterator[str]:
    if is_typeddict(kind):
        if not isinstance(value, dict):
            yield f"{name or 'the document'} must be a JSON object, not {value!r:.60}"
            return
        for key, inner in _hints(kind).items():
            if key in value:
                yield from _faults(value[key], inner, _dotted(name, key))
        if lacks := sorted(kind.__required_keys__ - value.keys()):
            yield f"{_dotted(name, lacks[0])} is missing"
        return
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if not any(next(_faults(value, option, name), "") == "" for option in inside):
            yield f"{name} must be {' or '.join(_NAMES.get(option, 'a list') for option in inside)}, not {value!r:.60}"
    elif origin is list:
        if not isinstance(value, list):
            yield f"{name} must be a list, not {value!r:.60}"
            return
        for number, item in enumerate(value):
            yield from _faults(item, inside[0], f"{name}[{number}]")
    elif origin is dict:
        if not isinstance(value, dict):
            yield f"{name} must be a JSON object, not {value!r:.60}"
            return
        for key, item in value.items():
            yield from _faults(item, inside[1], f"{name}.{key:.80}")
    elif kind in _NAMES and not _is(value, kind):
        yield f"{name} must be {_NAMES[kind]}, not {value!r:.60}"


def _is(value: object, kind: type) -> bool:
    if kind is int:
        return type(value) is int and -_MOST < value < _MOST
    if kind is float:
        return isinstance(value, int | float) and type(value) is not bool and abs(value) <= _LARGEST
    if isinstance(value, str):  # may become a path: no NUL, and of the surrogates only those of undecodable bytes
        return kind is str and not any(c == "\0" or "\ud800" <= c < "\udc80" or "\udcff" < c <= "\udfff" for c in value)
    return type(value) is kind


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _dotted(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key
