"""The workflows of GitHub: fixed actions, least permissions, no token on disk; and the audit of versions."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MORE: dict[str, dict[str, str]] = {"nightly.yml/regress": {"contents": "write", "issues": "write"}}
"""Permissions of jobs that need more than to read."""


def jobs(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())["jobs"]
    return found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_a_commit_with_its_version(path: Path) -> None:
    lines = [line.strip() for line in path.read_text().splitlines() if "uses:" in line]
    assert lines
    for line in lines:
        assert re.fullmatch(r"- uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_read_and_a_job_only_what_it_needs(path: Path) -> None:
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
    for name, job in jobs(path).items():
        assert job.get("permissions") == MORE.get(f"{path.name}/{name}")
        checkouts = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]
        assert checkouts
        assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_only_the_steps_that_need_the_token_have_it() -> None:
    for path in WORKFLOWS:
        for job in jobs(path).values():
            for step in job["steps"]:
                has_token = "github.token" in json.dumps(step) or "secrets." in json.dumps(step)
                assert has_token == any(word in step.get("run", "") for word in (".ci/history", "poolbench issue"))


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        ([{"name": "a", "version": "1", "vulns": []}], 0, "0 known vulnerabilities in 1 packages; 0 unknown"),
        ([{"name": "a", "skip_reason": "not found"}], 0, "was not audited"),
        (None, 0, "was not audited"),
        (
            [
                {"name": "a", "version": "1", "vulns": [{"id": "X-1", "fix_versions": ["2"]}]},
                {"name": "b", "skip_reason": ""},
            ],
            1,
            "a 1: X-1, fixed in 2",
        ),
    ],
)
def test_what_was_not_looked_up_is_not_called_safe(found: Any, code: int, said: str, tmp_path: Path) -> None:
    """A stand-in for pip-audit says what the real one was seen to say."""
    answer = "" if found is None else json.dumps({"dependencies": found})
    (tmp_path / "answer").write_text(answer)
    program = tmp_path / "pip-audit"
    program.write_text(f'#!/bin/sh\nwhile [ "$1" != --output ]; do shift; done\ncp {tmp_path}/answer "$2"\n')
    program.chmod(0o755)
    command = ["bash", str(ROOT / ".ci" / "audit"), str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, said in done.stdout) == (code, True), done
    required = subprocess.run([*command, "--required"], capture_output=True, text=True, check=False)
    assert required.returncode == (1 if "not audited" in said or code else 0)
