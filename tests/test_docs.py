"""The documentation: links lead somewhere, tables match the registries, the examples of extending.md run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from poolbench.registry import Registry, heads, pools

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md")), *sorted((ROOT / "benchmarks").rglob("*.md"))]
PACKAGES = ("poolbench", "poolbench_tasks", "poolbench_tracking")
FENCE = re.compile(r"(?:Save as `(?P<path>[^`]+)`[^\n]*\n\n)?```(?P<language>\w*)\n(?P<text>.*?)\n```", re.DOTALL)
OPTIONS = {"run": ["--seeds", "0", "--device", "cpu", "--no-mlflow"]}


class Block(NamedTuple):
    """A code block of a page; ``path`` where the page says "Save as `path`" above it."""

    path: str | None
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(found["path"], found["language"], found["text"]) for found in FENCE.finditer(page.read_text())]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())):
        if link.startswith(("http:", "https:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_compile(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, str(page), "exec")


@pytest.mark.parametrize(("registry", "heading"), [(pools, "## Local pools"), (heads, "## Heads")])
def test_tables_of_poolings_match_the_registry(registry: Registry[object], heading: str) -> None:
    section = (DOCS / "poolings.md").read_text().partition(f"{heading}\n")[2].partition("\n## ")[0]
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| `")]
    rows = [row for row in rows if len(row) == 6]
    assert [row[0] for row in rows] == [f"`{name}`" for name in registry.names()]
    for name, row in zip(registry.names(), rows, strict=True):
        facts = registry.facts(name)
        marks = ["yes" if facts[fact] else "" for fact in ("shift_equivariant", "learnable", "random")]
        assert row[2:] == [facts["reference"], *marks]


@pytest.mark.skipif(find_spec("poolbench.task") is None, reason="needs the module poolbench.task")
def test_the_examples_of_extending_run(tmp_path: Path) -> None:
    """Every "Save as" file goes into a copy of the packages; every poolbench command runs, in the page's order."""
    for package in PACKAGES:
        spec = find_spec(package)
        assert spec is not None
        assert spec.submodule_search_locations
        shutil.copytree(spec.submodule_search_locations[0], tmp_path / package)
    said: dict[str, str] = {}
    for block in blocks(DOCS / "extending.md"):
        if block.path is not None:
            # The wheel and this copy have the three packages side by side.
            file = tmp_path / block.path.removeprefix("benchmarks/")
            assert not file.exists()
            file.parent.mkdir(exist_ok=True)
            file.write_text(block.text + "\n")
        elif block.language == "bash":
            for line in block.text.splitlines():
                said[line] = _run(line, tmp_path)
    names = ("midrange", "midrange", "stripes", "two_stage_net")
    for kind, name in zip(("pools", "heads", "datasets", "architectures"), names, strict=True):
        assert name in said[f"poolbench list {kind}"]
    assert "brighter_half" in said["poolbench list --plugin my_plugin.py"]
    runs = {line: output for line, output in said.items() if line.startswith("poolbench run")}
    assert len(runs) == 5
    for line, output in runs.items():
        assert re.search(r"\b[1-9]\d* finished", output), f"{line}:\n{output}"
    assert "pool=midrange" in runs["poolbench run shift_robustness --preset smoke --pool max,midrange"]


def _run(line: str, folder: Path) -> str:
    program, *arguments = shlex.split(line)
    assert program == "poolbench"
    command = [sys.executable, "-m", "poolbench.cli", *arguments, *OPTIONS.get(arguments[0], [])]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}:\n{done.stderr}"
    return done.stdout + done.stderr
