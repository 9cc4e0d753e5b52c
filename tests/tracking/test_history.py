"""The file of the history: appended whole or not at all, never overwritten when damaged, shared by processes."""

from __future__ import annotations

import errno
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from poolbench.analysis.history import COLUMNS
from poolbench.core import UsageError
from poolbench.files import StorageError
from poolbench_tracking.history import History

APPEND = """
import sys
from pathlib import Path
import pandas as pd
from poolbench_tracking.history import History
def night(name):
    text = dict.fromkeys({text}, "x")
    return pd.DataFrame([{{**text, "night": name, "seed": 0, "value": 0.5, "learned": True}}])
history = History(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
"""


def night(name: str, values: Sequence[float] = (0.5,)) -> pd.DataFrame:
    text = {column: "x" for column, kind in COLUMNS.items() if kind == "str"}
    return pd.DataFrame(
        [{**text, "night": name, "seed": seed, "value": value, "learned": True} for seed, value in enumerate(values)]
    )


@contextmanager
def script(folder: Path, body: str) -> Iterator[subprocess.Popen[str]]:
    """A process that waits for a line of input and then runs the body, with ``history`` and ``night(name)``."""
    source = APPEND.format(text=[column for column, kind in COLUMNS.items() if kind == "str"]) + body
    command = [sys.executable, "-c", source, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        yield started


def test_a_folder_without_history_is_empty_and_typed(tmp_path: Path) -> None:
    frame = History(tmp_path / "absent").read()
    assert frame.empty
    History(tmp_path).append(night("1"))
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == dict(COLUMNS)
    assert frame.dtypes.equals(History(tmp_path).read().dtypes)
    assert not (tmp_path / "absent").exists()


def test_rows_come_back_to_the_last_bit_in_order_of_nights(tmp_path: Path) -> None:
    history = History(tmp_path / "new" / "folder")
    history.append(night("2", [0.1 + 0.2, float("nan")]))
    history.append(night("1", [1 / 3]))
    frame = history.read()
    assert frame["night"].tolist() == ["1", "2", "2"]
    assert [repr(value) for value in frame["value"]] == [repr(1 / 3), repr(0.1 + 0.2), "nan"]
    assert list(frame.columns) == list(COLUMNS)


def test_a_night_that_is_there_is_replaced_and_twice_is_once(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.append(pd.concat([night("1"), night("2", [0.1, 0.2, 0.3])]))
    history.append(night("2", [0.4]))
    before = history.path.read_bytes()
    history.append(night("2", [0.4]))
    assert history.path.read_bytes() == before
    assert history.read()[["night", "value"]].to_numpy().tolist() == [["1", 0.5], ["2", 0.4]]
    history.append(night("3").iloc[:0])
    assert history.path.read_bytes() == before


def test_columns_of_a_newer_version_are_kept(tmp_path: Path) -> None:
    History(tmp_path).append(night("1").assign(newer=[7.0]))
    History(tmp_path).append(night("2"))
    assert History(tmp_path).read()["newer"].tolist() == [7.0, pytest.approx(float("nan"), nan_ok=True)]


def test_processes_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    body = "for number in range(8): history.append(night('{}%d' % number))"
    with script(tmp_path, body.format("a")) as one, script(tmp_path, body.format("b")) as other:
        for process in (one, other):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in (one, other):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
    assert (one.returncode, other.returncode) == (0, 0)
    assert History(tmp_path).read()["night"].tolist() == [f"{name}{number}" for name in "ab" for number in range(8)]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_killed_process_leaves_the_old_file_whole(tmp_path: Path, call: str) -> None:
    history = History(tmp_path)
    history.append(night("1"))
    before = history.path.read_bytes()
    body = f"import os\nos.{call} = lambda *_: os.kill(os.getpid(), 9)\nhistory.append(night('2'))"
    with script(tmp_path, body) as killed:
        killed.communicate("\n", timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert history.path.read_bytes() == before
    assert len(list(tmp_path.glob(".*.tmp"))) == 1
    # The next night goes on, and removes what the killed process left.
    history.append(night("3"))
    assert history.read()["night"].tolist() == ["1", "3"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.lock", "history.parquet"]


def damage(history: History, kind: str) -> None:
    content = bytearray(history.path.read_bytes())
    if kind == "cut":
        del content[-9:]
    elif kind == "empty":
        content.clear()
    elif kind == "byte":
        content[content.index(struct.pack("<d", 0.2))] ^= 1
    history.path.write_bytes(content)
    if kind == "column":
        history.read().drop(columns=["seed", "label"]).to_parquet(history.path)
    elif kind == "type":
        history.read().assign(seed="zero").to_parquet(history.path)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("cut", "magic bytes"),
        ("empty", "0 bytes"),
        ("byte", "CRC"),
        ("column", "lacks the columns label, seed"),
        ("type", "zero"),
    ],
)
def test_a_damaged_file_is_one_line_and_is_never_overwritten(tmp_path: Path, kind: str, reason: str) -> None:
    history = History(tmp_path)
    history.append(night("1", [0.1, 0.2, 0.3]))
    damage(history, kind)
    before = history.path.read_bytes()
    for use in (history.read, lambda: history.append(night("2"))):
        with pytest.raises(UsageError, match=reason) as caught:
            use()
        assert str(history.path) in str(caught.value)
        assert "move it away" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert history.path.read_bytes() == before


def test_a_full_disk_and_a_bad_folder_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="choose another folder with --history"):
        History(Path("/proc/nowhere")).append(night("1"))
    history = History(tmp_path)
    history.append(night("1"))
    before = history.path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match="No space left"):
        history.append(night("2"))
    assert history.path.read_bytes() == before
    assert not list(tmp_path.glob(".*.tmp"))
