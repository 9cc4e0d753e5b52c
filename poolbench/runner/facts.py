"""The types of what a work folder says of a cell. It may come from a stranger, so no type is taken on trust."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

Check = Callable[[Any], bool]
LARGEST = 2**53
"""Up to here, a float holds every whole number."""
TOO_LARGE = 1e150
"""Nothing that is measured is as large, and the squares of larger numbers overflow."""
LATEST = 253_402_214_400.0
"""31 December 9999, in seconds since 1970. Calendars end a day later; time zones and clocks that are behind take it."""


def is_finite(value: Any) -> bool:
    """Return whether a value is a number that a float holds and that can be squared."""
    return (type(value) is float and abs(value) < TOO_LARGE) or (type(value) is int and abs(value) <= LARGEST)


def is_number(value: Any) -> bool:
    """Return whether a value is a number as above, infinite or NaN."""
    return is_finite(value) or (type(value) is float and not isfinite(value))


def is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST


def is_seconds(value: Any) -> bool:
    """Return whether a value is a duration, or a time since 1970 that calendars have."""
    return is_number(value) and 0 <= value < LATEST


def is_text(value: object) -> bool:
    return isinstance(value, str)


def is_mapping(value: object, check: Check = lambda inside: True) -> bool:
    """Return whether a value is a JSON object whose values pass a check."""
    return isinstance(value, dict) and all(map(check, value.values()))


def is_list(value: object, check: Check) -> bool:
    """Return whether a value is a JSON array whose values pass a check."""
    return isinstance(value, list) and all(map(check, value))


def _is_share(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def is_flag(value: object) -> bool:
    return isinstance(value, bool)


FACTS: Mapping[str, Check] = {
    "invocation": is_text,
    "environment": is_mapping,
    "environment_changed": is_flag,
    "plugins": lambda value: is_list(value, is_text),
    "resumed_after": is_count,
    "from_the_start": is_text,
    "seconds_load": is_seconds,
    "seconds_fit": is_seconds,
    "seconds_measure": is_seconds,
    "replicas": is_count,
    "data": lambda value: is_mapping(value) and all(is_text(value.get(name)) for name in ("name", "digest", "source")),
    "chance": _is_share,
    "commonest": _is_share,
    "images": lambda value: is_mapping(value, is_count),
    "learned": is_flag,
}
"""The facts that poolbench reads (see ``poolbench.core.Result``). Earlier versions wrote fewer; others may be there."""


def wrong(content: Mapping[str, Any], checks: Mapping[str, Check] = FACTS) -> str:
    """Return the name of the first value that fails its check, "" if none does; values may be absent."""
    return next((name for name, check in checks.items() if name in content and not check(content[name])), "")
