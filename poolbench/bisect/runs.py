"""Run the cells of a commit with its own code, and keep the results.

    bisect/<commit>         work folder of the cells as that commit runs them
    bisect/trees/<commit>   files of the commit that is running, a git worktree that is removed afterwards
    bisect/lock             held by the process that bisects

All that is known of a commit is what its command line writes: the lines of 'poolbench plan' and results.csv.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from poolbench.analysis.frames import read_results
from poolbench.bisect.checkout import Checkout, Commit
from poolbench.core import UsageError
from poolbench.files import storage
from poolbench.runner.plan import Selection

SOURCES = {"poolbench": "", "poolbench_tasks": "benchmarks", "poolbench_tracking": "tracking"}
"""Where a checkout has its packages: {package: folder}."""
INTERRUPTED = 130  # exit code of 'poolbench run' after Ctrl-C


class Unusable(Exception):
    """A commit that gives no results to compare. The message says why."""


@dataclass(frozen=True)
class Runs:
    """Runs cells as a commit does and keeps the results. ``options`` are more arguments of 'poolbench run'."""

    checkout: Checkout
    folder: Path
    plugins: Sequence[str]
    options: Sequence[str]
    say: Callable[[str], None]

    def results(self, commit: Commit, selection: Selection) -> pd.DataFrame:
        """Return the results frame of the selected cells; what was computed before is not run again.

        All networks count as learned: which have learned is judged against the others of a work folder, and these
        differ between commits. Raises Unusable if the commit does not know the cells or one does not finish.
        """
        out = self.folder / commit.hash
        table = out / "report" / "results.csv"
        chosen = [*selectors(selection), *(part for name in self.plugins for part in ("--plugin", name))]
        with self.checkout.files(commit, self.folder / "trees") as tree:
            environment = _environment(tree)
            planned = _poolbench("plan", *chosen, "--out", str(out))
            done = subprocess.run(planned, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Unusable(_last_line(done.stderr).removeprefix("poolbench: "))
            cells = {line.split()[0] for line in done.stdout.splitlines()}
            if not cells <= _cells(table):
                # A report older than the last cells would be taken for a complete one.
                table.with_name("report.html").unlink(missing_ok=True)
                self._run(_poolbench("run", *chosen, *self.options, "--no-mlflow", "--out", str(out)), environment)
        if missing := len(cells - _cells(table)):
            raise Unusable(f"its results lack {missing} of {len(cells)} cells")
        frame = read_results(str(table))
        return frame[frame["cell"].isin(cells)].assign(learned=True)

    def _run(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        # In a process group of its own, so that Ctrl-C reaches it once: from here.
        child = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, process_group=0
        )
        assert child.stderr is not None
        try:
            for line in child.stderr:
                self.say(f"  {line.rstrip()}")
            code = child.wait()
        except BaseException:
            child.terminate()
            child.communicate()
            raise
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if code:
            raise Unusable(f"'poolbench run' ended with exit code {code}, see above")


@contextmanager
def opened(checkout: Checkout, out: Path) -> Iterator[Path]:
    """Yield the folder ``out``/bisect, without worktrees that a killed process left.

    Raises UsageError if it cannot be written or if another process works in it.
    """
    folder = out / "bisect"
    with storage(folder):
        (folder / "trees").mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(folder / "lock").acquire(blocking=False)
        except Timeout as error:
            raise UsageError(f"another process bisects in '{out}'; wait for it or choose another --out") from error
    with lock:
        for tree in (folder / "trees").absolute().iterdir():
            checkout.remove(tree)
        yield folder


def selectors(selection: Selection) -> list[str]:
    """Return the arguments of 'poolbench run' and 'poolbench plan' that ask for a selection."""
    arguments = [*selection.names, "--preset", selection.preset]
    axes = {"pool": selection.pools, "head": selection.heads, "arch": selection.architectures}
    for name, entries in {**axes, "dataset": selection.datasets}.items():
        arguments += [] if entries is None else [f"--{name}", ",".join(entries)]
    if selection.seeds is not None:
        arguments += ["--seeds", ",".join(map(str, selection.seeds))]
    for name, value in selection.train.items():
        text = ("+".join(value) or "none") if isinstance(value, tuple) else value
        arguments += ["--train", f"{name}={text}"]
    for name, value in selection.where.items():
        arguments += ["--where", f"{name}={value}"]
    return arguments


def _poolbench(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "poolbench.cli", *arguments]


def _environment(tree: Path) -> dict[str, str]:
    """Return the environment in which the packages of a worktree are imported; raise Unusable if it lacks one."""
    for package, folder in SOURCES.items():
        if not (tree / folder / package / "__init__.py").is_file():
            # The installed package would run instead.
            raise Unusable(f"it has no package {Path(folder, package)}")
    places = [str(tree / folder) for folder in SOURCES.values()]
    more = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    # Safe path: not the packages of the current folder, which is often the checkout itself.
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*places, *more]), "PYTHONSAFEPATH": "1"}


def _cells(table: Path) -> set[str]:
    """Return the cells in a table of results, none if it is not there."""
    return set(pd.read_csv(table, usecols=["cell"], dtype=str)["cell"]) if table.exists() else set()


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]
