"""Code from outside the package: installed plugins (entry points) and the files or modules of ``--plugin``.

A plugin registers its pools, heads, architectures, data sets and tasks when it is imported. Only what the user
installed or named is imported, never what a work folder names.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.abc import SourceLoader
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from poolbench.core import UsageError

GROUP = "poolbench"
_given: dict[str, str] = {}  # top-level module -> plugin as the user named it
_state = {"installed": False}


def load_plugins(names: Sequence[str]) -> None:
    """Import plugins, each a module name or the path of a .py file; raise UsageError where one cannot be imported."""
    for name in names:
        module = import_code(name)
        _given[module.__name__.partition(".")[0]] = name


@dataclass(frozen=True)
class Parcel:
    """A plugin for a machine that lacks its file: as the user named it, with the text of the file (None: a module)."""

    name: str
    text: bytes | None


def pack_plugins(names: Sequence[str]) -> tuple[Parcel, ...]:
    """Return plugins, each a module name or the path of a .py file, with the text of the files."""
    return tuple(Parcel(name, Path(name).read_bytes() if name.endswith(".py") else None) for name in names)


def unpack_plugins(parcels: Sequence[Parcel]) -> None:
    """Import plugins that :func:`pack_plugins` packed, once; raise UsageError where one cannot be imported.

    A file has to be complete in itself: its neighbours do not travel.
    """
    for parcel in parcels:
        if parcel.text is None:
            load_plugins([parcel.name])
        else:
            _given[_import_text(parcel.name, parcel.text).__name__] = parcel.name


def load_installed_plugins() -> None:
    """Import the modules that installed distributions list under the entry point group ``poolbench``, once."""
    if _state["installed"]:
        return
    _state["installed"] = True
    for entry in entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as error:
            raise UsageError(
                f"installed plugin '{entry.value}' cannot be imported: {type(error).__name__}: {error}; "
                "update or uninstall it"
            ) from error
        _given[entry.module.partition(".")[0]] = entry.module


def import_code(name: str) -> ModuleType:
    """Return the module of a dotted name or of a .py file, imported once; raise UsageError where that fails."""
    try:
        return _import_file(Path(name)) if name.endswith(".py") else importlib.import_module(name)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"'{name}' cannot be imported: {type(error).__name__}: {error}; give package.module or a .py file"
        ) from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"there is no file '{path}'; give package.module or a .py file")
    # A name of its own, so that a file cannot replace an installed module of the same name.
    name = f"{path.stem}_{sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"'{path}' cannot be imported as Python")
    return _import_spec(spec)


def _import_text(path: str, text: bytes) -> ModuleType:
    name = f"{Path(path).stem}_{sha256(text).hexdigest()[:8]}"
    spec = importlib.util.spec_from_loader(name, _Text(path, text))
    assert spec is not None
    try:
        return _import_spec(spec)
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"plugin '{path}' cannot be imported on another machine: {type(error).__name__}: {error}; "
            "only its own text travels, so install it there and give package.module"
        ) from error


class _Text(SourceLoader):
    """Imports the text of a file that is on another machine."""

    def __init__(self, path: str, text: bytes) -> None:
        self.path, self.text = path, text

    def get_filename(self, fullname: str) -> str:
        return self.path

    def get_data(self, path: str | bytes) -> bytes:
        if path != self.path:  # SourceLoader looks for compiled code first
            raise OSError
        return self.text


def _import_spec(spec: ModuleSpec) -> ModuleType:
    """Return the module of a spec, imported once."""
    if spec.name not in sys.modules:
        sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
        assert spec.loader is not None
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[spec.name]
            raise
    return sys.modules[spec.name]


def plugin_of(module: str) -> str | None:
    """Return the plugin, as the user named it, that a module belongs to; None for modules of the package."""
    return _given.get(module.partition(".")[0])
