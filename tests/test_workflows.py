"""The workflows on GitHub: pinned actions, least permissions; and the audit of the pins."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
AUDIT = ROOT / ".ci" / "audit"
PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())["jobs"]
    return found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_to_commits(path: Path) -> None:
    lines = [line.strip().removeprefix("- ") for line in path.read_text().splitlines() if "uses:" in line]
    assert lines
    assert not [line for line in lines if not PINNED.fullmatch(line)]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_job_may_write_more_than_it_needs(path: Path) -> None:
    permissions = yaml.safe_load(path.read_text())["permissions"]
    assert permissions in ({}, {"contents": "read"})
    writing = {name: job["permissions"] for name, job in jobs(path).items() if "permissions" in job}
    assert writing == ({"regress": {"contents": "write", "issues": "write"}} if path.name == "nightly.yml" else {})
    for name, job in jobs(path).items():
        for step in job["steps"]:
            if "actions/checkout@" in step.get("uses", "") and name != "regress":
                assert step["with"] == {"persist-credentials": False}
        # Text of strangers (titles, branches) must not become shell.
        assert "${{ github.event" not in json.dumps(job)


def audit(folder: Path, pip_audit: str) -> subprocess.CompletedProcess[str]:
    """Run the audit with a module pip_audit of its own: the real one needs a network."""
    (folder / "pip_audit.py").write_text(pip_audit)
    command = [sys.executable, str(AUDIT)]
    return subprocess.run(
        command, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("packages", "line", "code"),
    [
        (
            [{"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}],
            "PYSEC-1 (mended in 2)",
            1,
        ),
        ([{"name": "a", "version": "1", "vulns": []}], "1 packages, 0 known vulnerabilities, 0 not", 0),
        ([{"name": "a", "skip_reason": "not found"}], "no advisories can be reached here", 0),
    ],
)
def test_the_audit(tmp_path: Path, packages: list[dict[str, Any]], line: str, code: int) -> None:
    done = audit(tmp_path, f"print({json.dumps({'dependencies': packages})!r})")
    assert (done.returncode, line in done.stdout) == (code, True), done


@pytest.mark.parametrize(
    "module",
    ["raise ImportError('broken')", "print('[]')", "print('{}')", "print('{\"dependencies\": null}')", "print(1)"],
)
def test_an_audit_that_fails_is_not_taken_for_one_without_a_network(tmp_path: Path, module: str) -> None:
    done = audit(tmp_path, module)
    assert (done.returncode, done.stdout.startswith("audit: failed: "), done.stderr) == (1, True, "")


def test_the_audit_without_a_network(tmp_path: Path) -> None:
    done = audit(tmp_path, "raise ConnectionError('no route to host')")
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert "cannot be reached here: ConnectionError: no route to host" in done.stdout
