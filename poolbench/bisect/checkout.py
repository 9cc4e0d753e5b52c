"""Commits of a git checkout, and their files in temporary worktrees."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from poolbench.core import UsageError


@dataclass(frozen=True)
class Commit:
    """A commit: full hash, date as 2026-11-26, author's name, subject."""

    hash: str
    date: str
    author: str
    subject: str

    @property
    def short(self) -> str:
        return self.hash[:10]

    def __str__(self) -> str:
        return f"{self.short} {self.date} {self.author}: {self.subject}"


class Checkout:
    """The git checkout that a folder lies in. Raises UsageError where there is none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self._git("rev-parse", "--git-dir")
        except FileNotFoundError as error:
            raise UsageError("bisect needs git, which is not installed; install it") from error
        except subprocess.CalledProcessError as error:
            raise UsageError(
                f"'{folder}' is not a git checkout ({_last_line(error)}); "
                "run bisect in a checkout of poolbench, or name one with --repo"
            ) from error

    def _git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.folder), *arguments], capture_output=True, encoding="utf-8", check=True
        )
        return done.stdout.strip()

    def _log(self, *arguments: str) -> list[Commit]:
        lines = self._git("log", "--no-show-signature", "--format=%H%x00%cs%x00%an%x00%s", *arguments).splitlines()
        return [Commit(*line.split("\0")) for line in lines]

    def commit(self, revision: str) -> Commit:
        """Return the commit of a revision; raise UsageError for an unknown one."""
        try:
            self._git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
            return self._log("-1", "--end-of-options", revision)[0]
        except subprocess.CalledProcessError as error:
            raise UsageError(
                f"unknown revision '{revision}' in '{self.folder}'; give a commit, tag or branch that 'git log' shows"
            ) from error

    def path(self, good: Commit, bad: Commit) -> list[Commit]:
        """Return the commits after ``good`` up to ``bad``, oldest first, along first parents.

        Raises UsageError if there is no such path.
        """
        if good == bad:
            raise UsageError(f"GOOD and BAD are the same commit {good.short}; give two different ones")
        found = self._log("--first-parent", "--ancestry-path", "--reverse", f"{good.hash}..{bad.hash}")
        if not found:
            raise UsageError(
                f"GOOD {good.short} is no ancestor of BAD {bad.short} along first parents; "
                f"give the older commit first, one that 'git log --first-parent {bad.short}' shows"
            )
        return found

    @contextmanager
    def files(self, commit: Commit, trees: Path) -> Iterator[Path]:
        """Yield the folder with the files of a commit, a worktree in ``trees`` that is removed at the end."""
        tree = trees.absolute() / commit.hash
        try:
            # Forced: git still knows a worktree whose folder somebody deleted.
            self._git("worktree", "add", "--detach", "--force", str(tree), commit.hash)
            yield tree
        except subprocess.CalledProcessError as error:
            raise UsageError(f"git cannot check out {commit.short} to '{tree}': {_last_line(error)}") from error
        finally:
            self.remove(tree)

    def remove(self, tree: Path) -> None:
        """Remove a worktree, whatever state an interrupted git left it in."""
        try:
            self._git("worktree", "remove", "--force", str(tree))
        except subprocess.CalledProcessError:
            shutil.rmtree(tree, ignore_errors=True)


def _last_line(error: subprocess.CalledProcessError) -> str:
    return (str(error.stderr).strip().splitlines() or ["no message"])[-1]
