"""Who imports whom, type-checking imports included, and what the fast commands must not import."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

import pytest

PACKAGES = ("poolbench", "poolbench_tasks", "poolbench_tracking")

# A module belongs to the layer of its longest prefix here. It may import its own layer and those above it in this list.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "poolbench.errors",
        "poolbench.configuration",
        "poolbench.names",
        "poolbench.core",
        "poolbench.choice",
        "poolbench.claim",
        "poolbench.declared",
        "poolbench.files",
        "poolbench.plugins",
        "poolbench.registry",
        "poolbench.search",
    ),
    ("poolbench.geometry", "poolbench.pooling"),
    ("poolbench.data", "poolbench.recording"),
    ("poolbench.architectures", "poolbench.engine", "poolbench.measures", "poolbench.surgery"),
    ("poolbench.analysis",),
    ("poolbench.plots",),
    ("poolbench.task",),
    ("poolbench.bisect", "poolbench.decide", "poolbench.runner", "poolbench.shift_map", "poolbench.tune"),
    ("poolbench.own_model",),
    ("poolbench.inspect",),
    ("poolbench_tasks", "poolbench_tracking"),
    ("poolbench.cli", "poolbench.__main__"),
)

# All that these may import of poolbench, beside themselves.
ONLY: dict[str, tuple[str, ...]] = {
    "poolbench.errors": (),
    "poolbench.names": ("poolbench.errors",),
    "poolbench.configuration": ("poolbench.errors",),
    "poolbench.core": ("poolbench.errors", "poolbench.configuration"),
    "poolbench.choice": ("poolbench.core",),
    "poolbench.claim": ("poolbench.core",),
    "poolbench.declared": ("poolbench.core",),
    "poolbench.files": ("poolbench.core",),
    "poolbench.search": ("poolbench.core",),
    "poolbench.plugins": ("poolbench.core",),
    "poolbench.registry": (
        "poolbench.core",
        "poolbench.claim",
        "poolbench.declared",
        "poolbench.names",
        "poolbench.plugins",
    ),
    "poolbench.analysis": ("poolbench.core", "poolbench.choice", "poolbench.claim"),
    "poolbench.plots": ("poolbench.core", "poolbench.analysis"),
    "poolbench.plots.captions": (),
}

# What these must not import, although it is in their own layer or outside the package.
NEVER: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("poolbench", ("mlflow",)),
    ("poolbench.measures", ("poolbench.engine",)),
    ("poolbench_tasks", ("poolbench_tracking", "mlflow")),
    ("poolbench_tracking", ("poolbench_tasks", "torch")),
)

Graph = Mapping[str, set[str]]


def _folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def _modules() -> dict[str, Path]:
    """Return {dotted name: file} of all modules of the packages."""
    found = {}
    for package in PACKAGES:
        folder = _folder(package)
        for path in folder.rglob("*.py"):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imports(tree: ast.Module, modules: Mapping[str, Path]) -> Iterator[str]:
    """Yield the modules that a source file imports, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from {name if name in modules else str(node.module) for name in names}


def _imports_by_name(tree: ast.Module) -> Iterator[str]:
    """Yield the modules that a source file names in ``deferred("...")`` and ``import_module("...")``."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Name(id="deferred" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in _modules().items()}


@pytest.fixture(scope="module")
def graph(trees: dict[str, ast.Module]) -> Graph:
    modules = _modules()
    return {name: set(_imports(tree, modules)) for name, tree in trees.items()}


def _within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _prefix(module: str, prefixes: Mapping[str, object]) -> str | None:
    """Return the longest of the prefixes that the module lies in."""
    return max((prefix for prefix in prefixes if _within(module, prefix)), key=len, default=None)


def _layer(module: str) -> int | None:
    """Return the number of the layer of a module, None for a module that no layer names."""
    numbers = {prefix: number for number, prefixes in enumerate(LAYERS, start=1) for prefix in prefixes}
    # The package itself holds the version only.
    numbers["poolbench"] = 1
    prefix = _prefix(module, numbers)
    return None if prefix is None or (prefix == "poolbench" and module != prefix) else numbers[prefix]


def offences(graph: Graph) -> Iterator[str]:
    """Yield a line for each import that the tables above forbid and for each module that they do not name."""
    for module, imported in sorted(graph.items()):
        layer = _layer(module)
        if layer is None:
            yield f"{module} is in no layer: add it to LAYERS"
            continue
        only = _prefix(module, ONLY)
        for other in sorted(imported):
            if any(_within(module, a) and _within(other, b) for a, forbidden in NEVER for b in forbidden):
                yield f"{module} must not import {other}"
            if not any(_within(other, package) for package in PACKAGES):
                continue
            above = _layer(other)
            if above is None or above > layer:
                yield f"{module} (layer {layer}) imports {other} (layer {above})"
            if only and not any(_within(other, prefix) for prefix in (only, *ONLY[only])):
                yield f"{module} may import {', '.join(ONLY[only]) or 'nothing'} of poolbench, imports {other}"
            if _within(other, "poolbench.cli") and layer < len(LAYERS):
                yield f"{module} imports the command line"


def test_every_module_imports_only_what_its_layer_may(graph: Graph) -> None:
    assert not list(offences(graph))


def test_modules_imported_by_name_obey_the_layers(trees: dict[str, ast.Module]) -> None:
    named = {module: set(_imports_by_name(tree)) for module, tree in trees.items()}
    assert any(named.values())
    assert not list(offences(named))


@pytest.mark.parametrize(
    ("module", "other", "message"),
    [
        ("poolbench.errors", "poolbench.core", "may import nothing"),
        ("poolbench.pooling.local", "poolbench.data", "layer 3"),
        ("poolbench.measures.shift.maps", "poolbench.engine.loop", "must not import"),
        ("poolbench.architectures.resnet", "poolbench.runner.cell", "layer 8"),
        ("poolbench.analysis.gate", "poolbench.registry", "may import poolbench.core"),
        ("poolbench.plots.scene", "poolbench.data", "may import poolbench.core, poolbench.analysis"),
        ("poolbench.plots.captions", "poolbench.core", "may import nothing"),
        ("poolbench.runner.cell", "poolbench_tracking.report", "layer 11"),
        ("poolbench.runner.ledger", "mlflow.tracking", "must not import"),
        ("poolbench_tasks.x.measure", "poolbench_tracking.report", "must not import"),
        ("poolbench_tracking.report", "poolbench_tasks.x", "must not import"),
        ("poolbench_tracking.report", "torch.nn", "must not import"),
        ("poolbench_tasks.x", "poolbench.cli", "imports the command line"),
        ("poolbench.runner.execute", "poolbench.cli.progress", "imports the command line"),
        ("poolbench.cores", "poolbench.core", "is in no layer"),
    ],
)
def test_a_forbidden_import_is_noticed(module: str, other: str, message: str) -> None:
    assert message in " / ".join(offences({module: {other}}))


def test_no_module_imports_itself_through_others(graph: Graph) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_core_imports_only_the_standard_library() -> None:
    script = (
        "import sys; before = set(sys.modules); import poolbench.core\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - sys.stdlib_module_names), sorted(m for m in sys.modules if m.startswith('poolbench.')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = sorted(f"poolbench.{name}" for name in ("configuration", "core", "errors"))
    assert done.stdout.strip() == f"['poolbench'] {modules}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["list"],
        ["plan", "all"],
        ["run", "--help"],
        ["bisect", "--help"],
        ["evaluate", "--help"],
        ["inspect", "pools", "--help"],
        ["inspect", "model", "--help"],
        ["inspect", "live", "--help"],
    ],
)
def test_fast_commands_import_no_heavy_library(arguments: list[str], tmp_path: Path) -> None:
    script = (
        "import sys\nfrom poolbench.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n"
        "    assert end.code in (0, None), end.code\n"
        "heavy = {'torch', 'mlflow', 'optuna', 'pandas', 'matplotlib', 'scipy', 'numpy', 'timm'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)


@pytest.mark.skipif("POOLBENCH_INSTALLED" not in os.environ, reason="only where the wheel is installed, as tox does")
def test_the_installed_wheel_is_tested_and_not_the_checkout() -> None:
    for package in PACKAGES:
        assert "site-packages" in _folder(package).parts
        assert (_folder(package) / "py.typed").exists()
