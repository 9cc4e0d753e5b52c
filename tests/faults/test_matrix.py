"""Every kind of file x every kind of damage x every command: one line, the promised exit code, no traceback.

Only a part of the slow commands' cases runs by default; POOLBENCH_MATRIX=all runs all.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import Result

from poolbench.runner.ledger import Ledger

RUN = ("run", "tiny", "--preset", "smoke", "--jobs", "1", "--no-mlflow", "--out", "OUT")
FILES = {
    "config": "FINISHED/config.json",
    "events": "FINISHED/events.jsonl",
    "result": "FINISHED/result.json",
    "table": "FINISHED/layers.parquet",
    "answers": "FINISHED/answers.parquet",
    "arrays": "FINISHED/arrays.npz",
    "weights": "FINISHED/weights.pt",
    "unfinished-config": "UNFINISHED/config.json",
    "unfinished-events": "UNFINISHED/events.jsonl",
    "checkpoint": "UNFINISHED/checkpoint.pt",
    "invocation": "out/invocations/*.json",
    "journal": "out/tuning/journal.log",
    "study": "out/tuning/*/study.json",
    "study-result": "out/tuning/*/cells/*/result.json",
    "store": "out/mlflow.db",
    "folder-id": "out/folder.id",
    "report": "out/report/report.html",
    "verdict": "out/regress/verdict.json",
    "baseline": "baseline/results.csv",
    "history": "history/history.parquet",
}
OF_FINISHED = ("config", "events", "result", "table", "answers", "arrays", "weights")
FAST = {
    "status": ("status", "--out", "OUT"),
    "plan": ("plan", "tiny", "--preset", "smoke", "--out", "OUT"),
    "doctor": ("doctor", "--out", "OUT", "--history", "HISTORY"),
    "fix": ("doctor", "--fix", "--out", "OUT", "--history", "HISTORY"),
    "run": RUN,
}
SLOW = {
    "report": ("report", "--out", "OUT"),
    "export": ("report", "--export", "--no-mlflow", "--out", "OUT"),
    "compare": ("report", "--compare", "OUT", "OUT", "--out", "OUT"),
    "sync": ("sync", "--out", "OUT"),
    "claims": ("claims", "--out", "OUT"),
    "decide": ("decide", "tiny", "--preset", "smoke", "--budget", "1s", "--jobs", "1", "--no-mlflow", "--out", "OUT"),
    "tune": ("tune", "tiny", "--preset", "smoke", "--pool", "max", "--trials", "2", "--trial-seeds", "2", "--no-mlflow",
             "--out", "OUT"),
    "tuned": (*RUN, "--pool", "max", "--tuned"),
    "accept": ("baseline", "accept", "BASE", "--out", "OUT"),
    "regress": ("regress", "--baseline", "BASE", "--history", "HISTORY", "--no-confirm", "--out", "OUT"),
    "issue": ("issue", "--out", "OUT"),
    "merge": ("merge", "OUT", "--out", "MERGED"),
    "inspect": ("inspect", "model", "CELL", "--work", "OUT"),
    "run-mlflow": tuple(one for one in RUN if one != "--no-mlflow"),
}  # fmt: skip
COMMANDS = FAST | SLOW
DAMAGES = ("cut", "empty", "random", "shape", "other", "denied", "gone")


def damaged(path: Path, damage: str) -> None:
    """Damage a file. "random" keeps its size."""
    content = path.read_bytes()
    match damage:
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "empty":
            path.write_bytes(b"")
        case "random":
            path.write_bytes(random.Random(str(path.name)).randbytes(len(content)))
        case "shape":
            path.write_bytes(other_shape(path.suffix))
        case "other":
            path.write_bytes(other_version(path, content))
        case "denied":
            path.chmod(0)
        case "gone":
            path.unlink()


def other_shape(suffix: str) -> bytes:
    """Return a whole file of the type that holds something else."""
    content = io.BytesIO()
    match suffix:
        case ".json" | ".jsonl" | ".log":
            return b'[{"metrics": [1, 2], "started": "soon"}]\n'
        case ".parquet":
            pd.DataFrame({"other": ["a", "b"]}).to_parquet(content)
        case ".npz":
            np.savez(content, other=np.zeros((2, 2)))
        case ".pt":
            torch.save([1, 2, 3], content)
        case ".csv":
            return b"other,columns\n1,2\n"
        case _:
            return b"something else\n"
    return content.getvalue()


def other_version(path: Path, content: bytes) -> bytes:
    """Return what an earlier or later version might have written."""
    if path.suffix == ".json":
        stored = json.loads(content)
        return json.dumps({f"old_{name}": value for name, value in stored.items()} | {"version": 99}).encode()
    if path.suffix in (".jsonl", ".log"):
        return content.replace(b'"event"', b'"happened"').replace(b'"op_code"', b'"operation"')
    if path.suffix == ".parquet":
        table = pd.read_parquet(path)
        changed = io.BytesIO()
        table.rename(columns={table.columns[0]: "renamed"}).to_parquet(changed)
        return changed.getvalue()
    return content + b"\nanother version"


def cases() -> Iterator[Any]:
    everything = os.environ.get("POOLBENCH_MATRIX") == "all"
    for row, kind in enumerate(FILES):
        for column, damage in enumerate(DAMAGES):
            for number, command in enumerate(COMMANDS):
                share, place = (37, row * 5 + column + 3 * number) if command in SLOW else (4, row + column + number)
                if everything or place % share == 0:
                    yield pytest.param(kind, damage, command, id=f"{kind}-{damage}-{command}")


def codes(command: str) -> tuple[int, ...]:
    """Return the exit codes that docs/reliability.md promises."""
    match command:
        case "status" | "plan" | "run" | "report" | "export" | "claims" | "run-mlflow":
            return (0,)
        case "doctor" | "fix" | "sync" | "merge":
            return (0, 1)
        case "regress":
            return (0, 2, 3)  # 1 would be a regression, and nothing has changed
        case _:
            return (0, 2)


@pytest.mark.parametrize(("kind", "damage", "command"), list(cases()))
def test_a_damaged_file(work: Any, unprivileged: Callable[[], Any], kind: str, damage: str, command: str) -> None:
    path = work.file(FILES[kind])
    damaged(path, damage)
    with unprivileged():
        done = work.run(*COMMANDS[command])
        check(done, command)
        if kind in OF_FINISHED:
            check_cell(work, done, path.name, damage, command)


def check(done: Result, command: str) -> None:
    """No exception reaches the user, the exit code is one of those promised, and wrong input takes one line."""
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert "Traceback" not in done.output
    assert done.exit_code in codes(command), done.output
    if done.exit_code == 2:
        assert done.stderr.count("\n") - done.stderr.count("damaged") <= 2, done.stderr


def check_cell(work: Any, done: Result, name: str, damage: str, command: str) -> None:
    """The damaged cell is named with its file, or executed again; the others are not concerned."""
    cell = work.finished[0]
    # Weights of the same size are read only by who needs them.
    unseen = name == "weights.pt" and damage in ("random", "denied")
    # Without a result, a cell is one that was never finished.
    unfinished = (name, damage) == ("result.json", "gone")
    match command:
        case "status" | "claims":
            assert unseen or unfinished or (cell.id in done.stderr and name in done.stderr), done.output
        case "doctor":
            assert done.exit_code == (0 if unfinished else 1)
            assert unfinished or (cell.id in done.stdout and name in done.stdout), done.stdout
        case "report" | "export":
            rows = list(csv.DictReader(io.StringIO((work.out / "report" / "results.csv").read_text())))
            left = {row["cell"] for row in rows}
            assert left == {one.id for one in work.finished[0 if unseen else 1 :]}
            page = (work.out / "report" / "report.html").read_text()
            assert unseen or unfinished or (cell.id in page and name in page)
        case "run" | "run-mlflow":
            ledger = Ledger(work.out)
            assert {ledger.result(one).status for one in [*work.finished, work.unfinished]} == {"finished"}
            kept = list(work.out.glob(f"damaged/{cell.id}-*"))
            assert len(kept) == (0 if unseen or unfinished else 1)
            assert ledger.result(cell).metrics["accuracy"] == 1.0 - cell.seed / 100
