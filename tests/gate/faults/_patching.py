"""How faults replace a piece of poolbench, and how that is undone.

A fault names the function or method that it replaces. If poolbench no longer has it, or has given it other
parameters, the fault cannot be loaded: it raises MovedTarget with the name of what is missing.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

Owner = ModuleType | type

_replaced: list[tuple[Owner, str, FunctionType, FunctionType]] = []  # owner, name, original, replacement


class MovedTarget(LookupError):
    """What a fault replaces is not where the fault looks for it."""


def in_place_of(owner: Owner, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate ``new(original, ...)`` so that it is called in place of a function of a module or a method of a class.

    ``new`` takes the original and then the original's own parameters, by the same names. A function is replaced in
    every module of poolbench that has imported it. Raises MovedTarget where there is no such function.
    """
    original = vars(owner).get(name)
    if not isinstance(original, FunctionType):
        raise MovedTarget(f"{owner.__name__} defines no function '{name}'; the fault that replaces it must follow")
    if isinstance(owner, ModuleType) and original.__module__ != owner.__name__:
        raise MovedTarget(f"{name} of {owner.__name__} is defined in {original.__module__}; replace it there")

    def plant(new: Callable[..., Any]) -> Callable[..., Any]:
        expected = ["original", *inspect.signature(original).parameters]
        found = list(inspect.signature(new).parameters)
        if found != expected:
            raise MovedTarget(f"{owner.__name__}.{name} takes {expected[1:]}, but its fault expects {found[1:]}")

        @functools.wraps(original)
        def replacement(*arguments: Any, **options: Any) -> Any:
            return new(original, *arguments, **options)

        _put(owner, name, original, replacement)
        _replaced.append((owner, name, original, replacement))
        return new

    return plant


def undo() -> None:
    """Put everything back that was replaced in this process."""
    while _replaced:
        owner, name, original, replacement = _replaced.pop()
        _put(owner, name, replacement, original)


def _put(owner: Owner, name: str, old: FunctionType, new: FunctionType) -> None:
    """Replace a function in its class, or in all modules that know it by any name."""
    if isinstance(owner, type):
        setattr(owner, name, new)
        return
    for module in [module for key, module in sys.modules.items() if key.startswith("poolbench")]:
        for known_as in [key for key, value in vars(module).items() if value is old]:
            setattr(module, known_as, new)
