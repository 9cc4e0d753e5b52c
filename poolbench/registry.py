"""One registry for everything that has a name: pools, heads, architectures, data sets, benchmarks.

An entry is registered beside its definition, by a decorator with literal arguments. Its options are the keyword
parameters of the class or function, with literal defaults. Names, descriptions and options of the package's entries
are read from the source text without importing it (importing torch takes seconds); ``get`` imports. A test checks
that both views agree. Modules outside the package register their entries when they are imported (see ``plugins``).
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from poolbench.core import COMPONENTS, Cell, Component, Options, Scalar, TrainConfig, UsageError
from poolbench.declared import Entry, Option, declared_entries, signature_options
from poolbench.names import file_name
from poolbench.plugins import load_installed_plugins, plugin_of

T = TypeVar("T")
MAX_NAMES_SHOWN = 60


def closest(kind: str, given: str, allowed: Iterable[str]) -> UsageError:
    """Return the error for an unknown name: what was given, the nearest name, all allowed ones."""
    names = sorted(allowed)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    if not names:
        shown = "there are none"
    else:
        shown = f"there are: {', '.join(names)}" if len(names) <= MAX_NAMES_SHOWN else f"there are {len(names)}"
    return UsageError(f"unknown {kind} '{given}'{hint} ({shown})")


class Registry(Generic[T]):
    """Entries of one kind, registered by the modules of ``package`` as ``@<variable>.register(name)``.

    ``fixed`` names the parameters that every entry of this kind is called with; all others are its options.
    """

    def __init__(self, kind: str, package: str, variable: str, fixed: Sequence[str] = ()) -> None:
        self.kind = kind
        self.package = package
        self.variable = variable
        self.fixed = ("self", *fixed)
        self._entries: dict[str, Entry[T]] = {}
        self._loaded = False

    def register(self, name: str, **facts: Any) -> Callable[[T], T]:
        """Decorate a definition with its name and facts.

        Raises UsageError for a name that could not be that of a file, ValueError for one that is taken, also by an
        entry of the package that is not imported yet, and TypeError for a parameter that is no option (see
        ``declared.declare``).
        """

        def add(target: T) -> T:
            file_name(name, self.kind)
            inside = getattr(target, "__module__", "").startswith(f"{self.package}.")
            if name in self._entries or (not inside and name in self._declared):
                raise ValueError(f"{self.kind} '{name}' is registered twice")
            summary = (getattr(target, "__doc__", None) or "").strip().partition("\n")[0]
            self._entries[name] = Entry(name, target, summary, facts, signature_options(target, self.fixed))
            return target

        return add

    def names(self) -> list[str]:
        """Return all names, sorted; imports nothing but installed plugins."""
        load_installed_plugins()
        return sorted({*self._declared, *self._entries})

    def describe(self, name: str) -> str:
        """Return the first docstring line of an entry; imports nothing."""
        return self._known(name).summary

    def facts(self, name: str) -> Mapping[str, Any]:
        """Return the facts that were registered with an entry; imports nothing."""
        return self._known(name).facts

    def options(self, name: str) -> Mapping[str, Option]:
        """Return the declared options of an entry; imports nothing."""
        return self._known(name).options

    def _known(self, name: str) -> Entry[Any]:
        # First, because it may import the installed plugin that registers the name.
        self.check(name)
        return self._entries[name] if name in self._entries else self._declared[name]

    def check(self, name: str) -> str:
        """Return the name if there is an entry of that name, else raise UsageError with the nearest."""
        if name not in self.names():
            raise closest(self.kind, name, self.names())
        return name

    def resolve(self, name: str, given: Options | None = None) -> Component:
        """Return the entry with a value for each of its options: the given one or the default; imports nothing.

        Raises UsageError for an unknown name, an unknown option and a value of another type.
        """
        declared = self.options(name)
        values = {key: option.default for key, option in declared.items()}
        for key, value in (given or {}).items():
            if key not in declared:
                raise closest(f"{name} option", key, declared)
            try:
                values[key] = declared[key].check(value)
            except TypeError:
                raise self._mistyped(name, declared[key], value) from None
        return Component(name, {key: values[key] for key in sorted(values)})

    def parse(self, text: str, given: Options | None = None) -> Component:
        """Return the component of a text such as "max" or "gem_local:p=4,eps=1e-3"; raise UsageError.

        Options in the text take precedence over the ``given`` ones.
        """
        name, written = split_component(text)
        declared = self.options(name)
        values: dict[str, Scalar] = dict(given or {})
        for key, value in written.items():
            if key not in declared:
                raise closest(f"{name} option", key, declared)
            try:
                values[key] = declared[key].parse(value)
            except TypeError:
                raise self._mistyped(name, declared[key], value) from None
        return self.resolve(name, values)

    def written(self, component: Component) -> str:
        """Return a component as a user writes it, such as "top_k:k=3": options with their defaults are left out."""
        if component.name not in self.names():
            return component.name
        declared = self.options(component.name)
        changed = {name: value for name, value in component.options.items() if declared[name].default != value}
        own = ",".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in changed.items()
        )
        return f"{component.name}:{own}" if own else component.name

    def _mistyped(self, name: str, option: Option, value: Scalar) -> UsageError:
        wanted = f"{option.wanted} (default {option.default!r})"
        return UsageError(f"option '{option.name}' of {self.kind} '{name}' is {wanted}, got {value!r}")

    def entry(self, name: str) -> Entry[T]:
        """Return the entry, importing the modules of the package on first use."""
        self.check(name)
        if name not in self._entries and not self._loaded:
            for module in self._modules():
                importlib.import_module(module)
            self._loaded = True
        return self._entries[name]

    def module(self, name: str) -> str:
        """Return the module that registered an entry, "" where it is not imported (an entry of the package)."""
        return getattr(self._entries[name].target, "__module__", "") if name in self._entries else ""

    def get(self, name: str) -> T:
        """Return the registered object of that name."""
        return self.entry(name).target

    def _modules(self) -> dict[str, Path]:
        package = importlib.util.find_spec(self.package)
        if package is None or package.submodule_search_locations is None:
            raise ImportError(f"no package {self.package}")
        return {
            f"{self.package}.{info.name}": Path(
                location, f"{info.name}/__init__.py" if info.ispkg else f"{info.name}.py"
            )
            for location in package.submodule_search_locations
            for info in pkgutil.iter_modules([location])
        }

    @cached_property
    def _declared(self) -> dict[str, Entry[None]]:
        """The entries as the source text of the package declares them."""
        return {
            entry.name: entry
            for path in self._modules().values()
            for entry in declared_entries(path, self.variable, self.fixed)
        }


def split_component(text: str) -> tuple[str, dict[str, str]]:
    """Return the name and the options of a text such as "gem_local:p=4,eps=1e-3"; raise UsageError.

    Names may hold a colon themselves (timm:resnet18): options begin behind the last one, and each has a "=".
    """
    name, colon, rest = text.rpartition(":")
    if not colon or "=" not in rest:
        return text, {}
    options = {}
    for part in rest.split(","):
        key, equals, value = part.partition("=")
        if not (key and equals and value):
            raise UsageError(f"options are NAME:KEY=VALUE,KEY=VALUE, like gem_local:p=4, got '{text}'")
        if key.strip() in options:
            raise UsageError(f"option '{key.strip()}' is given twice in '{text}'; give it once")
        options[key.strip()] = value.strip()
    return name, options


CELL_FIELDS = {*COMPONENTS, "variant", "padding_mode", "seed", *(f.name for f in fields(TrainConfig))}
TIMM = "timm:"
Factory = Callable[..., Any]


class Architectures(Registry[Factory]):
    """Registered architectures, and every model of timm as "timm:NAME"."""

    def register(self, name: str, **facts: Any) -> Callable[[Factory], Factory]:
        """Decorate a builder as in every registry; raise TypeError for an option named like a field of a cell.

        Options of an architecture are selected by their own names, beside the axes and the training options.
        """
        register = super().register(name, **facts)

        def add(target: Factory) -> Factory:
            if taken := sorted(CELL_FIELDS & signature_options(target, self.fixed).keys()):
                raise TypeError(f"architecture '{name}': rename the option {', '.join(taken)}, a field of every cell")
            return register(target)

        return add

    def check(self, name: str) -> str:
        """Return the name of a registered or timm model, else raise UsageError; imports timm for its models."""
        if not name.startswith(TIMM):
            return super().check(name)
        import timm

        if not timm.is_model(name.removeprefix(TIMM)):
            raise closest("timm model", name.removeprefix(TIMM), timm.list_models())
        return name

    def _known(self, name: str) -> Entry[Any]:
        if name.startswith(TIMM):
            self.check(name)
            return Entry(name, None, options=TIMM_OPTIONS)
        return super()._known(name)


TIMM_OPTIONS: Mapping[str, Option] = {
    "pretrained": Option("pretrained", "bool", False),
    "placement": Option(
        "placement", "Literal['after_activation', 'before_norm', 'before_convolution']", "after_activation"
    ),
}

benchmarks: Registry[Factory] = Registry("benchmark", "poolbench_tasks", "benchmarks")
datasets: Registry[Factory] = Registry("dataset", "poolbench.data", "datasets", ("location", "device"))
pools: Registry[Factory] = Registry("pool", "poolbench.pooling", "pools", ("channels", "stride", "padding_mode"))
heads: Registry[Factory] = Registry("head", "poolbench.pooling", "heads", ("channels", "size"))
architectures = Architectures(
    "architecture",
    "poolbench.architectures",
    "architectures",
    ("in_shape", "num_classes", "pool", "head", "padding_mode"),
)


def origins(cell: Cell) -> list[str]:
    """Return the plugins, as the user named them, that the cell's benchmark and components come from."""
    parts: list[tuple[Registry[Any], str]] = [
        (benchmarks, cell.benchmark),
        (datasets, cell.dataset.name),
        (architectures, cell.architecture.name),
        (pools, cell.pool.name),
        (heads, cell.head.name),
    ]
    found = (plugin_of(registry.module(name)) for registry, name in parts)
    return sorted({plugin for plugin in found if plugin is not None})
