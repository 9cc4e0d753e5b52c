"""``poolbench issue`` against a fake gh that records its calls."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from poolbench_tracking.tracker_issue import MARKER

FAKE = """#!{python}
import json, pathlib, sys
home = pathlib.Path({home!r})
arguments = sys.argv[1:]
body = pathlib.Path(arguments[arguments.index("--body-file") + 1]).read_text() if "--body-file" in arguments else ""
with open(home / "calls", "a") as log:
    log.write(json.dumps([arguments, body]) + "\\n")
if arguments[1] in (home / "fails").read_text().split():
    sys.exit("HTTP 502:\\n bad gateway")
if arguments[:2] == ["issue", "list"]:
    print((home / "issues").read_text())
"""
Cli = Callable[..., Result]


@dataclass
class FakeGitHub:
    """The program gh: ``issues`` it lists, names of calls that fail, and the calls it got, without those of list."""

    home: Path

    def answer(self, issues: Sequence[dict[str, Any]] | str = (), fails: str = "") -> None:
        (self.home / "issues").write_text(issues if isinstance(issues, str) else json.dumps(issues))
        (self.home / "fails").write_text(fails)

    @property
    def calls(self) -> list[tuple[list[str], str]]:
        log = self.home / "calls"
        found = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [(arguments, body) for arguments, body in found if arguments[1] != "list"]


@pytest.fixture
def gh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGitHub:
    home = tmp_path / "fake"
    home.mkdir()
    program = home / "gh"
    program.write_text(FAKE.format(python=sys.executable, home=str(home)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}{os.pathsep}{os.environ['PATH']}")
    fake = FakeGitHub(home)
    fake.answer()
    return fake


@pytest.fixture
def gate(tmp_path: Path) -> Callable[..., Path]:
    """Write what the gate leaves behind: ``gate(exit_code, *regressed)``; returns its folder."""

    def write(exit_code: int, *regressed: str) -> Path:
        folder = tmp_path / "my work" / "regress"
        folder.mkdir(parents=True, exist_ok=True)
        verdict = {"exit_code": exit_code, "night": "2026-11-20", "commit": "abc1234", "regressed": list(regressed)}
        (folder / "verdict.json").write_text(json.dumps(verdict))
        (folder / "summary.md").write_text("# Regression gate\n")
        return folder

    return write


def issue(cli: Cli, *more: str) -> Result:
    return cli("issue", "--out", "my work", *more)


def test_from_red_to_green(gh: FakeGitHub, gate: Callable[..., Path], cli: Cli) -> None:
    gate(1, "pool=max")
    assert issue(cli, "--post").exit_code == 0
    ((create, body),) = gh.calls
    assert create == [
        "issue",
        "create",
        "--title",
        "The nightly gate is red",
        "--body-file",
        "my work/regress/issue.md",
    ]
    assert body.startswith(MARKER)
    gh.answer([{"number": 3, "body": "another issue"}, {"number": 9, "body": body}, {"number": 8, "body": body}])
    issue(cli, "--post")
    assert [arguments[:3] for arguments, _ in gh.calls[1:]] == [["issue", "edit", "8"]]
    gate(1, "pool=max", "pool=avg")
    issue(cli, "--post", "--repo", "some/where")
    (comment, edit) = gh.calls[2:]
    assert comment[0][:5] == ["issue", "comment", "8", "--repo", "some/where"]
    assert "- pool=avg" in comment[1]
    assert edit[0][:5] == ["issue", "edit", "8", "--repo", "some/where"]
    gate(3)
    done = issue(cli, "--post")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "absence never heals" in done.stderr
    gate(0)
    issue(cli, "--post")
    assert [arguments[:3] for arguments, _ in gh.calls[4:]] == [["issue", "comment", "8"], ["issue", "close", "8"]]
    gh.answer()
    done = issue(cli, "--post")
    assert (done.exit_code, len(gh.calls)) == (0, 6)
    assert "nothing to do" in done.stderr


def test_a_dry_run_prints_commands_that_work(gh: FakeGitHub, gate: Callable[..., Path], cli: Cli) -> None:
    folder = gate(1, "pool=max")
    gh.answer([{"number": 8, "body": MARKER}])
    done = issue(cli)
    assert (done.exit_code, gh.calls) == (0, [])
    commands = [shlex.split(line) for line in done.stdout.splitlines()]
    assert [command[:4] for command in commands] == [["gh", "issue", "comment", "8"], ["gh", "issue", "edit", "8"]]
    assert [Path(command[-1]).read_text()[:4] for command in commands] == ["Nigh", "<!--"]
    assert sorted(path.name for path in folder.glob("*.md")) == ["comment.md", "issue.md", "summary.md"]


def test_without_gh(gate: Callable[..., Path], cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    gate(1, "pool=max")
    monkeypatch.setenv("PATH", "/nowhere")
    done = issue(cli)
    assert (done.exit_code, done.stdout.split()[:3]) == (0, ["gh", "issue", "create"])
    assert "no 'gh' to ask" in done.stderr
    done = issue(cli, "--post")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "poolbench: there is no 'gh' on the PATH; install the GitHub CLI, or leave out --post\n"


@pytest.mark.parametrize("fails", ["list", "comment", "edit"])
def test_a_failure_of_github_is_one_line_and_exit_code_1(
    gh: FakeGitHub, gate: Callable[..., Path], cli: Cli, fails: str
) -> None:
    gate(1, "pool=max")
    gh.answer([{"number": 8, "body": MARKER}], fails)
    done = issue(cli, "--post")
    assert done.exit_code == 1
    message = f"poolbench: 'gh issue {fails}' failed: HTTP 502: bad gateway; run the same command again\n"
    assert done.stderr == message
    # What failed is not reported as done: the issue's body is written last.
    assert [arguments[1] for arguments, _ in gh.calls] == {"list": [], "comment": ["comment"]}.get(
        fails, ["comment", "edit"]
    )


def test_an_answer_that_is_no_list_is_one_line(gh: FakeGitHub, gate: Callable[..., Path], cli: Cli) -> None:
    gate(1, "pool=max")
    for answer in ("", "{}x", '[{"number": 1}]', "[3]"):
        gh.answer(answer)
        done = issue(cli, "--post")
        assert (done.exit_code, done.stderr.count("\n"), "gave no list of issues" in done.stderr) == (1, 1, True)
    assert gh.calls == []


@pytest.mark.parametrize("repo", ["", "name", "a/b/c", "a b/c", "https://github.com/a/b"])
def test_a_wrong_repository_is_one_line(gate: Callable[..., Path], cli: Cli, repo: str) -> None:
    gate(1)
    done = issue(cli, "--repo", repo)
    assert (done.exit_code, done.stderr) == (2, f"poolbench: --repo is OWNER/NAME, got '{repo}'\n")


def test_without_a_verdict(cli: Cli) -> None:
    done = issue(cli)
    assert done.exit_code == 2
    assert "cannot read the verdict of the gate in 'my work/regress'" in done.stderr
    assert "run 'poolbench regress' first" in done.stderr
