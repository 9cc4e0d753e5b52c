"""The one GitHub issue that says whether the nightly gate is red: what to do with it, and doing it with ``gh``.

The issue starts with two HTML comments: the marker by which it is found, and the groups that it reports. A regression
opens or updates it, a green night closes it, a night without data leaves it as it is.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poolbench.core import UsageError
from poolbench.files import storage, text_bytes, write_atomically
from poolbench_tracking.report import markdown_text, plain_word

MARKER = "<!-- poolbench nightly gate -->"
TITLE = "The nightly gate is red"
LONGEST = 65_536
"""Characters that GitHub allows in a body."""
SECONDS = 120
"""How long one call of gh may take."""
_REPORTED = re.compile(r"<!-- poolbench regressed: (.*) -->")


class TrackerUnavailable(Exception):
    """GitHub cannot be reached, or refuses. The message is one line."""


@dataclass(frozen=True)
class NightVerdict:
    """What the gate said of a night: its exit code (0 green, 1 regressed, 3 no data), the labels that regressed."""

    exit_code: int
    night: str
    commit: str
    regressed: tuple[str, ...]


@dataclass(frozen=True)
class Issue:
    """An open issue."""

    number: int
    body: str

    @property
    def reported(self) -> set[str]:
        """The labels of the groups that the issue reports as regressed."""
        found = _REPORTED.search(self.body)
        try:
            return set(json.loads(found[1])) if found else set()
        except (ValueError, TypeError):
            # Edited by hand: all groups are then new.
            return set()


@dataclass(frozen=True)
class Request:
    """One call of gh: its arguments and, where it takes one, the text of ``--body-file``."""

    arguments: tuple[str, ...]
    body: str = ""


def read_night(folder: Path) -> tuple[NightVerdict, str]:
    """Return the verdict and the summary that ``poolbench regress`` wrote into ``folder``.

    Raises UsageError if they are absent or not what the gate writes.
    """
    try:
        given = json.loads((folder / "verdict.json").read_text(encoding="utf-8"))
        verdict = _verdict(given)
        return verdict, (folder / "summary.md").read_text(encoding="utf-8")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"cannot read the verdict of the gate in '{folder}': {type(error).__name__}: {error}; "
            "run 'poolbench regress' first"
        ) from error


def _verdict(given: dict[str, Any]) -> NightVerdict:
    code, regressed = given["exit_code"], given["regressed"]
    if code not in (0, 1, 3):
        raise ValueError(f"exit_code is one of 0, 1, 3, got {code!r}")
    if not isinstance(regressed, list) or not all(isinstance(label, str) for label in regressed):
        raise ValueError(f"regressed is a list of labels, got {regressed!r}")
    return NightVerdict(code, str(given["night"]), str(given["commit"]), tuple(regressed))


def requests(verdict: NightVerdict, summary: str, issue: Issue | None) -> Iterator[Request]:
    """Yield the calls of gh that a night asks for, given the open issue if there is one.

    Comments come before the change that makes them obsolete: if a call fails, the next night says it again.
    """
    if verdict.exit_code == 1:
        body = issue_body(verdict, summary)
        if issue is None:
            yield Request(("issue", "create", "--title", TITLE), body)
            return
        if issue.reported != set(verdict.regressed):
            yield Request(("issue", "comment", str(issue.number)), _changes(verdict, issue))
        yield Request(("issue", "edit", str(issue.number)), body)
    elif verdict.exit_code == 0 and issue is not None:
        yield Request(("issue", "comment", str(issue.number)), f"{_where(verdict)}: nothing is regressed.\n")
        yield Request(("issue", "close", str(issue.number)))


def issue_body(verdict: NightVerdict, summary: str) -> str:
    """Return marker, reported groups and summary, cut at the length that GitHub allows."""
    # "-->" would end the comment; in JSON, > has another spelling.
    reported = json.dumps(sorted(verdict.regressed)).replace(">", "\\u003e")
    head = f"{MARKER}\n<!-- poolbench regressed: {reported} -->\n\n"
    return cut(f"{head}{_where(verdict)}.\n\n{summary}")


def cut(body: str) -> str:
    """Return a body that GitHub accepts: too long ones lose their last lines, and a line says so."""
    if len(body) <= LONGEST:
        return body
    # Outside of a section that the cut leaves folded.
    note = "\n\n</details>\n\nCut here: GitHub allows 65,536 characters. All of it is in regress/summary.md.\n"
    return body[: LONGEST - len(note)].rpartition("\n")[0] + note


def _where(verdict: NightVerdict) -> str:
    commit = plain_word(verdict.commit)
    return f"Night {plain_word(verdict.night)}" + (f", commit {commit}" if commit else "")


def _changes(verdict: NightVerdict, issue: Issue) -> str:
    now = set(verdict.regressed)
    lines = [f"{_where(verdict)}: other groups are regressed than before.", ""]
    for title, labels in (("New:", now - issue.reported), ("No longer in the list:", issue.reported - now)):
        if labels:
            lines += [title, "", *(f"- {markdown_text(label)}" for label in sorted(labels)), ""]
    return cut("\n".join(lines))


class GitHub:
    """The issues of a repository ("OWNER/NAME", or that of the current folder), through the program gh."""

    def __init__(self, repo: str | None) -> None:
        self.repo = repo

    @property
    def is_installed(self) -> bool:
        """Whether there is the program gh."""
        return shutil.which("gh") is not None

    def command(self, arguments: Sequence[str], body_file: Path | None = None) -> list[str]:
        """Return the command of a call."""
        where = ["--repo", self.repo] if self.repo else []
        return ["gh", *arguments, *where, *(["--body-file", str(body_file)] if body_file else [])]

    def open_issue(self) -> Issue | None:
        """Return the open issue with the marker on a line of its own, the oldest of several, None without one.

        Raises UsageError without gh and TrackerUnavailable.
        """
        # All open issues: the search of GitHub knows new ones only after a while, and does not see comments of HTML.
        arguments = ("issue", "list", "--state", "open", "--limit", "10000", "--json", "number,body")
        answer = self.call(self.command(arguments))
        try:
            issues = [Issue(int(found["number"]), str(found["body"])) for found in json.loads(answer)]
        except (ValueError, KeyError, TypeError) as error:
            raise TrackerUnavailable(f"'gh issue list' gave no list of issues: {error}") from error
        marked = [issue for issue in issues if MARKER in issue.body.splitlines()]
        return min(marked, key=lambda issue: issue.number, default=None)

    def call(self, command: Sequence[str]) -> str:
        """Run a command and return its output; raise UsageError without gh and TrackerUnavailable if it fails."""
        if not self.is_installed:
            raise UsageError("there is no 'gh' on the PATH; install the GitHub CLI, or leave out --post")
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=SECONDS, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise TrackerUnavailable(f"'{' '.join(command[:3])}' did not run: {error}") from error
        if done.returncode != 0:
            said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise TrackerUnavailable(f"'{' '.join(command[:3])}' failed: {said}")
        return done.stdout


def written(request: Request, github: GitHub, folder: Path) -> list[str]:
    """Write the body of a request into ``folder`` and return its command; raise StorageError if that fails."""
    if not request.body:
        return github.command(request.arguments)
    path = folder / ("comment.md" if request.arguments[1] == "comment" else "issue.md")
    with storage(folder):
        write_atomically(path, text_bytes(request.body))
    return github.command(request.arguments, path)
