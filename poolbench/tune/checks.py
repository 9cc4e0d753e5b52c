"""The types in study.json, checked: the file may come from a stranger, and nothing else says that it is whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from poolbench.runner.facts import Check, is_count, is_finite, is_flag, is_list, is_mapping, is_seconds, is_text, wrong


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, str | bool) or is_finite(value)


def _are_parameters(value: object) -> bool:
    return is_mapping(value, _is_scalar)


def _are_values(value: object) -> bool:
    """Return whether a value is {metric: one finite number per seed}."""
    return is_mapping(value, lambda inside: is_list(inside, is_finite))


STUDY: Mapping[str, Check] = {
    "id": is_text,
    "cell": is_mapping,
    "design": is_mapping,
    "distributions": lambda value: is_mapping(value, is_text),
    "budget": is_mapping,
    "trials": lambda value: is_list(value, is_mapping),
    "confirmed": lambda value: is_list(value, is_mapping),
    "best": lambda value: value is None or _are_parameters(value),
    "confirmation_seconds": is_seconds,
    "failure": is_text,
}
DESIGN: Mapping[str, Check] = {
    "objectives": lambda value: is_list(value, is_text) and len(value) > 0,
    "limits": lambda value: is_mapping(value, is_finite),
    "seeds": is_count,
}
BUDGET: Mapping[str, Check] = {"trials": is_count, "seconds": lambda value: value is None or is_seconds(value)}
TRIAL: Mapping[str, Check] = {
    "number": is_count,
    "state": lambda value: value in ("complete", "pruned", "infeasible"),
    "parameters": _are_parameters,
    "values": _are_values,
    "seconds": is_seconds,
    "started": is_seconds,
    "ended": is_seconds,
    "reason": is_text,
}
CONFIRMATION: Mapping[str, Check] = {
    "trial": is_count,
    "is_default": is_flag,
    "parameters": _are_parameters,
    "values": _are_values,
}


def check_study(content: Any) -> None:
    """Raise TypeError or KeyError for the content of a study.json in which a value is of another type.

    Trials that are feasible and what was confirmed have a value of every objective.
    """
    if not is_mapping(content):
        raise TypeError("a study is a JSON object")
    _check(content, STUDY)
    _check(content["design"], DESIGN)
    _check(content["budget"], BUDGET)
    for trial in content["trials"]:
        _check(trial, TRIAL)
    for one in content["confirmed"]:
        _check(one, CONFIRMATION)
    judged = [trial for trial in content["trials"] if trial["state"] != "infeasible"]
    for one in (*judged, *content["confirmed"]):
        _check_values(one["values"], content["design"]["objectives"])


def _check(content: Mapping[str, Any], checks: Mapping[str, Check]) -> None:
    if name := wrong(content, checks):
        raise TypeError(f"'{name}' is of another type")


def _check_values(values: Mapping[str, Sequence[float]], objectives: Sequence[str]) -> None:
    """Raise KeyError for an objective without values."""
    for name in objectives:
        if not values.get(name):
            raise KeyError(name)
