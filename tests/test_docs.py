"""The documentation: links lead somewhere, tables match the registries, the examples of extending.md run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
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
# One process per command: starting two workers takes longer than these cells.
RUN = ["--seeds", "0", "--device", "cpu", "--no-mlflow", "--jobs", "1"]


CONTRAST = ("__init__.py", "measure.py", "figures.py", "README.md")


class Block(NamedTuple):
    """A code block of a page; ``path`` where the page says "Save as `path`" above it."""

    path: str | None
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    return blocks_of(page.read_text())


def blocks_of(text: str) -> list[Block]:
    return [Block(found["path"], found["language"], found["text"]) for found in FENCE.finditer(text)]


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


def test_the_example_of_surgery_runs(tmp_path: Path) -> None:
    (example,) = [block.text for block in blocks(DOCS / "surgery.md") if block.language == "python"]
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "layer2.0.downsample.0: aps at layer2.0.downsample.0.pool" in done.stdout
    assert "follows the phase of layer2.0.conv1" in done.stdout


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


class Extended(NamedTuple):
    """A copy of the packages after all of extending.md, in order of the page.

    ``files`` are the saved files by heading, ``said`` is the output of each command.
    """

    folder: Path
    files: dict[str, list[str]]
    said: dict[str, str]


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Extended:
    """Save every "Save as" file into a copy of the packages, run every poolbench command."""
    folder = tmp_path_factory.mktemp("extended")
    for package in PACKAGES:
        spec = find_spec(package)
        assert spec is not None
        assert spec.submodule_search_locations
        shutil.copytree(spec.submodule_search_locations[0], folder / package)
    page = (DOCS / "extending.md").read_text()
    found = Extended(folder, {}, {})
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        for block in blocks_of(section):
            if block.path is not None:
                found.files.setdefault(section.partition("\n")[0], []).append(block.path)
                # The wheel and this copy have the three packages side by side.
                file = folder / block.path.removeprefix("benchmarks/")
                assert not file.exists()
                file.parent.mkdir(exist_ok=True)
                file.write_text(block.text + "\n")
            elif block.language == "bash":
                for line in block.text.splitlines():
                    found.said[line] = _run(line, folder)
    return found


@pytest.mark.slow
def test_the_examples_of_extending_run(extended: Extended) -> None:
    names = ("midrange", "midrange", "stripes", "two_stage_net")
    for kind, name in zip(("pools", "heads", "datasets", "architectures"), names, strict=True):
        assert name in extended.said[f"poolbench list {kind}"]
    assert "brighter_half" in extended.said["poolbench list --plugin my_plugin.py"]
    runs = {line: output for line, output in extended.said.items() if line.startswith("poolbench run")}
    assert len(runs) == 5
    for line, output in runs.items():
        assert re.search(r"\b[1-9]\d* finished", output), f"{line}:\n{output}"
    for pool in ("max", "midrange"):
        assert f" {pool} avg " in runs["poolbench run shift_robustness --preset smoke --pool max,midrange"]


@pytest.mark.slow
def test_a_pool_a_head_a_data_set_and_an_architecture_are_one_file(extended: Extended) -> None:
    assert extended.files == {
        "A pool": ["poolbench/pooling/midrange.py"],
        "A head": ["poolbench/pooling/global_midrange.py"],
        "A data set": ["poolbench/data/stripes.py"],
        "A task": [f"benchmarks/poolbench_tasks/contrast/{file}" for file in CONTRAST],
        "An architecture": ["poolbench/architectures/two_stage_net.py"],
        "Outside the package": ["my_plugin.py"],
    }


@pytest.fixture(scope="module")
def report(extended: Extended) -> dict[str, str]:
    """Add a claim in one file and a measure in two, run the task; return the files of the report by name."""
    tasks = extended.folder / "poolbench_tasks"
    claim = next(block.text for block in blocks(DOCS / "extending.md") if block.text.startswith("Claim("))
    new = claim.replace("gap_beats_gmp", "planted_claim").replace(
        "is more accurate than global max", "beats global max"
    )
    _edit(tasks / "global_pooling" / "claims.py", "CLAIMS = (\n", textwrap.indent(new, " " * 4) + ",\n")
    metric = 'Metric("accuracy_half", "accuracy at 50 % contrast", higher_is_better=True, tolerance=0.02),'
    _edit(tasks / "contrast" / "__init__.py", "        metrics=(\n", f"            {metric}\n")
    number = ', "accuracy_half": rows[1]["accuracy"]'
    _edit(tasks / "contrast" / "measure.py", '"accuracy_low": rows[-1]["accuracy"]', number)
    # Other cells than before: finished ones are not measured again.
    _run("poolbench run contrast --preset smoke --epochs 2", extended.folder)
    folder = extended.folder / "poolbench-out" / "report"
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def _edit(file: Path, after: str, new: str) -> None:
    text = file.read_text()
    assert text.count(after) == 1, f"'{after}' is {text.count(after)} times in {file}"
    file.write_text(text.replace(after, after + new))


@pytest.mark.slow
def test_a_task_with_its_own_figure_is_one_folder(report: dict[str, str]) -> None:
    assert "Mean accuracy over seeds at each contrast, one line per pool." in report["report.html"]
    assert "Average pooling keeps more accuracy at low contrast than max pooling." in report["report.html"]


@pytest.mark.slow
def test_a_claim_is_one_edit(report: dict[str, str]) -> None:
    # Listed by its name where no network of the tiny runs has learned, by its sentence where some have.
    for name in ("report.html", "report.md"):
        assert "planted claim" in report[name] or "Global average pooling beats global max pooling." in report[name]


@pytest.mark.slow
def test_a_measure_is_two_edits(report: dict[str, str]) -> None:
    assert "accuracy at 50 % contrast" in report["report.html"]
    assert "accuracy_half" in report["results.csv"]


def _run(line: str, folder: Path) -> str:
    program, *arguments = shlex.split(line)
    assert program == "poolbench"
    command = [sys.executable, "-m", "poolbench.cli", *arguments, *(RUN if arguments[0] == "run" else [])]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}:\n{done.stderr}"
    return done.stdout + done.stderr
