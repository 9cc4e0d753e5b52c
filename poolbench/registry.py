"""One registry for everything that has a name: pools, heads, architectures, data sets, benchmarks.

An entry is registered beside its definition by a decorator with literal arguments. ``names`` and
``describe`` read those decorators from the source text without importing the modules (torch alone
takes seconds), ``get`` imports them; a test holds the two views equal.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from poolbench.core import UsageError

if TYPE_CHECKING:
    from poolbench.task import Benchmark

T = TypeVar("T")
MOST_NAMES = 60  # more are not listed in an error


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered definition: its name, the object, its first docstring line and its facts."""

    name: str
    target: T
    summary: str = ""
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


def closest(kind: str, given: str, allowed: Iterable[str]) -> UsageError:
    """Return the error for an unknown name: what was given, the nearest name, all allowed ones."""
    names = sorted(allowed)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    shown = f"there are: {', '.join(names)}" if len(names) <= MOST_NAMES else f"there are {len(names)}"
    return UsageError(f"unknown {kind} '{given}'{hint} ({shown})")


class Registry(Generic[T]):
    """Entries of one kind, registered by the modules of ``package`` as ``@<variable>.register(name)``."""

    def __init__(self, kind: str, package: str, variable: str) -> None:
        self.kind = kind
        self.package = package
        self.variable = variable
        self._entries: dict[str, Entry[T]] = {}
        self._loaded = False

    def register(self, name: str, **facts: Any) -> Callable[[T], T]:
        """Decorate a definition with its name and facts; raise ValueError where the name is taken."""

        def add(target: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.kind} '{name}' is registered twice")
            summary = (getattr(target, "__doc__", None) or "").strip().partition("\n")[0]
            self._entries[name] = Entry(name, target, summary, MappingProxyType(facts))
            return target

        return add

    def names(self) -> list[str]:
        """Return all names, sorted; imports nothing."""
        return sorted({*self._declared, *self._entries})

    def describe(self, name: str) -> str:
        """Return the first docstring line of an entry; imports nothing."""
        return self._known(name).summary

    def facts(self, name: str) -> Mapping[str, Any]:
        """Return the facts that were registered with an entry; imports nothing."""
        return self._known(name).facts

    def _known(self, name: str) -> Entry[Any]:
        return self._entries[name] if name in self._entries else self._declared[self.check(name)]

    def check(self, name: str) -> str:
        """Return the name if there is an entry of that name, else raise UsageError with the nearest."""
        if name not in self.names():
            raise closest(self.kind, name, self.names())
        return name

    def entry(self, name: str) -> Entry[T]:
        """Return the entry, importing the modules of the package on first use."""
        self.check(name)
        if name not in self._entries and not self._loaded:
            for module in self._modules():
                importlib.import_module(module)
            self._loaded = True
        return self._entries[name]

    def get(self, name: str) -> T:
        """Return the registered object of that name."""
        return self.entry(name).target

    def _modules(self) -> dict[str, Path]:
        package = importlib.util.find_spec(self.package)
        if package is None or package.submodule_search_locations is None:
            raise ImportError(f"no package {self.package}")
        return {
            f"{self.package}.{info.name}": Path(location)
            / (f"{info.name}/__init__.py" if info.ispkg else f"{info.name}.py")
            for location in package.submodule_search_locations
            for info in pkgutil.iter_modules([location])
        }

    @cached_property
    def _declared(self) -> dict[str, Entry[None]]:
        """Names, summaries and facts as the source text declares them."""
        found: dict[str, Entry[None]] = {}
        for path in self._modules().values():
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    summary = (ast.get_docstring(node) or "").partition("\n")[0]
                    for decorator in node.decorator_list:
                        for name, facts in self._declaration(decorator):
                            found[name] = Entry(name, None, summary, MappingProxyType(facts))
        return found

    def _declaration(self, decorator: ast.expr) -> Iterator[tuple[str, dict[str, Any]]]:
        match decorator:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=variable), attr="register"),
                args=[ast.Constant(value=str(name))],
                keywords=keywords,
            ) if variable == self.variable:
                constants = {k.arg: k.value.value for k in keywords if isinstance(k.value, ast.Constant)}
                yield name, {str(key): value for key, value in constants.items()}


TIMM = "timm:"  # architectures of this prefix are timm's, and checked when they are built
Loader = Callable[..., Any]
Factory = Callable[..., Any]

benchmarks: Registry[Callable[[], Benchmark]] = Registry("benchmark", "poolbench_tasks", "benchmarks")
datasets: Registry[Loader] = Registry("dataset", "poolbench.data", "datasets")
pools: Registry[Factory] = Registry("pool", "poolbench.pooling", "pools")
heads: Registry[Factory] = Registry("head", "poolbench.pooling", "heads")
architectures: Registry[Factory] = Registry("architecture", "poolbench.architectures", "architectures")


def check_architecture(name: str) -> str:
    """Return the name of a registered or timm architecture, else raise UsageError; imports nothing."""
    return name if name.startswith(TIMM) else architectures.check(name)
