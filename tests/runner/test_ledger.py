"""The ledger: what survives torn lines, half-written files and full disks."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

from poolbench.core import NO_COMPONENT, Cell, Component, Measurement
from poolbench.files import DamagedFile, StorageError, write_atomically
from poolbench.runner.cell_record import CellRecord
from poolbench.runner.ledger import Ledger


def finish(record: CellRecord, accuracy: float = 0.5) -> None:
    record.finish(
        Measurement({"accuracy": accuracy, "bad": math.nan}, {"t": pd.DataFrame({"a": [1, 2]})}, {"m": np.arange(3)}),
        {"learned": True},
        b"weights",
    )


def test_a_cell_goes_from_pending_to_finished(ledger: Ledger, cells: list[Cell]) -> None:
    cell, record = cells[0], ledger.record(cells[0].id)
    assert ledger.result(cell).status == "pending"
    record.begin(cell, {"invocation": "i"})
    record.append("epoch", epoch=1, val_accuracy=0.4)
    with record.lock:
        assert ledger.result(cell).status == "running"
    assert ledger.result(cell).status == "pending"
    finish(record)
    result = ledger.result(cell)
    assert result.status == "finished"
    assert result.metrics["accuracy"] == 0.5
    assert math.isnan(result.metrics["bad"])
    assert result.facts == {"invocation": "i", "learned": True}
    assert [row["epoch"] for row in result.history] == [1]
    assert result.started is not None
    assert result.ended is not None
    assert result.started <= result.history[0]["time"] <= result.ended
    assert record.table("t")["a"].tolist() == [1, 2]
    assert record.array("m").tolist() == [0, 1, 2]
    assert ledger.results() == [result]


def test_only_the_last_attempt_counts(ledger: Ledger, cells: list[Cell]) -> None:
    record = ledger.record(cells[0].id)
    record.begin(cells[0], {})
    record.append("epoch", epoch=1)
    record.append("failed", reason="no luck", traceback="Traceback ...")
    assert ledger.result(cells[0]).status == "failed"
    assert ledger.result(cells[0]).reason == "no luck"
    record.begin(cells[0], {})
    assert ledger.result(cells[0]).status == "pending"
    assert ledger.result(cells[0]).history == []
    assert ledger.result(cells[0]).reason == ""


def test_epochs_behind_the_checkpoint_that_a_cell_resumed_from_count_once(ledger: Ledger, cells: list[Cell]) -> None:
    cell, record = cells[0], ledger.record(cells[0].id)
    record.begin(cell, {"invocation": "first"})
    for epoch, loss in ((1, 0.9), (2, 0.8), (3, 0.7)):
        record.append("epoch", epoch=epoch, train_loss=loss)
    record.resume(cell, 2, {"invocation": "second"})
    assert [row["epoch"] for row in ledger.result(cell).history] == [1, 2]
    record.append("epoch", epoch=3, train_loss=0.6)
    result = ledger.result(cell)
    assert [(row["epoch"], row["train_loss"]) for row in result.history] == [(1, 0.9), (2, 0.8), (3, 0.6)]
    assert result.facts == {"invocation": "second", "resumed_after": 2}
    assert result.status == "pending"
    record.append("failed", reason="no luck", traceback="Traceback ...")
    assert ledger.result(cell).status == "failed"
    record.resume(cell, 3, {"invocation": "third"})
    assert (ledger.result(cell).status, len(ledger.result(cell).history)) == ("pending", 3)


def test_a_checkpoint_is_replaced_whole_and_goes_with_the_result(ledger: Ledger, cells: list[Cell]) -> None:
    record = ledger.record(cells[0].id)
    record.begin(cells[0], {})
    assert record.checkpoint() is None
    record.save_checkpoint(b"one")
    (record.folder / ".checkpoint.pt.77.tmp").write_bytes(b"half of tw")
    assert record.checkpoint() == b"one"
    record.save_checkpoint(b"two")
    assert record.checkpoint() == b"two"
    assert not list(record.folder.glob(".*"))
    finish(record)
    assert record.checkpoint() is None


@pytest.mark.parametrize("torn", [b'{"event": "epo', b'{"event": "epoch", "epoch": 2}'[:-1], b"\x00\xff"])
def test_a_torn_last_line_is_dropped_and_does_not_swallow_the_next(
    ledger: Ledger, cells: list[Cell], torn: bytes
) -> None:
    record = ledger.record(cells[0].id)
    record.begin(cells[0], {})
    record.append("epoch", epoch=1)
    with open(record.folder / "events.jsonl", "ab") as file:
        file.write(torn)
    assert [row["epoch"] for row in ledger.result(cells[0]).history] == [1]
    record.append("epoch", epoch=2)
    assert [row["epoch"] for row in ledger.result(cells[0]).history] == [1, 2]


def test_epochs_are_read_as_they_come(ledger: Ledger, cells: list[Cell]) -> None:
    record = ledger.record(cells[0].id)
    assert record.epochs(0) == ([], 0)
    record.begin(cells[0], {})
    record.append("epoch", epoch=1, val_accuracy=0.5)
    rows, position = record.epochs(0)
    assert [(row["epoch"], row["val_accuracy"]) for row in rows] == [(1, 0.5)]
    with open(record.folder / "events.jsonl", "ab") as file:
        file.write(b'{"event": "epoch", "epo')
    assert record.epochs(position) == ([], position)
    with open(record.folder / "events.jsonl", "ab") as file:
        file.write(b'ch": 2, "time": 5}\n')
    rows, position = record.epochs(position)
    assert rows == [{"epoch": 2, "time": 5}]
    assert position == (record.folder / "events.jsonl").stat().st_size


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_said_in_one_line(ledger: Ledger, cells: list[Cell], monkeypatch: pytest.MonkeyPatch) -> None:
    record = ledger.record(cells[0].id)
    record.begin(cells[0], {})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left on device; free space or choose another folder"):
            finish(record)
    assert ledger.result(cells[0]).status == "pending"
    finish(record)
    assert ledger.result(cells[0]).status == "finished"


def test_a_result_cut_off_before_its_last_file_is_not_finished(ledger: Ledger, cells: list[Cell]) -> None:
    record = ledger.record(cells[0].id)
    record.begin(cells[0], {})
    finish(record)
    (record.folder / "result.json").unlink()
    assert ledger.result(cells[0]).status == "pending"


def test_cells_of_another_version_are_counted_and_left_out(ledger: Ledger, cells: list[Cell]) -> None:
    for cell in cells[:3]:
        ledger.record(cell.id).begin(cell, {})
    config = ledger.record(cells[0].id).folder / "config.json"
    config.write_text(json.dumps({**cells[0].config(), "unheard_of": 1}))
    config = ledger.record(cells[1].id).folder / "config.json"
    older = cells[1].config()
    del older["split"]
    config.write_text(json.dumps({**older, "version": 7}))
    assert [result.cell for result in ledger.results()] == [cells[2]]
    assert ledger.left_out() == ["2 cells are left out: written by another version of poolbench"]


def test_cells_of_missing_plugins_are_left_out_with_a_line_per_plugin(ledger: Ledger, cells: list[Cell]) -> None:
    assert ledger.left_out() == []
    strange = [
        (replace(cells[0], benchmark="brighter_half", pool=Component("mine")), ["my_plugin.py"]),
        (replace(cells[1], benchmark="brighter_half", pool=Component("mine")), ["my_plugin.py"]),
        (replace(cells[0], pool=Component("mine"), head=Component("my_head")), ["a b.py", "package.module"]),
        (replace(cells[0], dataset=Component("retired")), []),
    ]
    for cell, plugins in [(cells[3], []), *strange]:
        ledger.record(cell.id).begin(cell, {"plugins": plugins})
    none = replace(cells[2], pool=NO_COMPONENT, architecture=Component("timm:of_any_name", {"pretrained": False}))
    ledger.record(none.id).begin(none, {})
    assert {result.cell for result in ledger.results()} == {cells[3], none}
    assert sorted(ledger.left_out()) == [
        "1 cell of 'tiny' is left out (no dataset 'retired'): no plugin is recorded; install the package, or "
        "the version of poolbench, that they came from",
        "1 cell of 'tiny' is left out (no pool 'mine', no head 'my_head'): give --plugin 'a b.py' "
        "--plugin package.module, or install it",
        "2 cells of 'brighter_half' are left out: give --plugin my_plugin.py",
    ]


def test_an_invocation_is_closed_with_its_outcome(ledger: Ledger) -> None:
    with ledger.open_invocation("poolbench run all", "quick") as invocation:
        assert invocation.is_running()
    assert invocation.content["outcome"] == "finished"
    with ledger.open_invocation("poolbench run all", "quick") as invocation:
        invocation.outcome = "failed"
    assert invocation.content["outcome"] == "failed"
    for error, expected in ((KeyboardInterrupt, "interrupted"), (StorageError, "failed")):
        with pytest.raises(error), ledger.open_invocation("poolbench run all", "quick") as invocation:
            raise error
        assert invocation.content["outcome"] == expected
        assert not invocation.is_running()


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(StorageError, match="cannot write to"):
        Ledger(tmp_path / "out").create()


def test_invocations_know_whether_they_run(ledger: Ledger) -> None:
    invocation = ledger.open_invocation("poolbench run all", "quick")
    assert invocation.is_running()
    assert [i.id for i in ledger.invocations()] == [invocation.id]
    invocation.close("finished")
    assert not invocation.is_running()
    assert ledger.invocations()[0].content["outcome"] == "finished"
    # One whose process died: nobody holds the lock, nothing was written down.
    content = json.loads(invocation.path.read_text())
    invocation.path.write_text(json.dumps({**content, "ended": None}))
    assert not invocation.is_running()
    with FileLock(invocation.path.with_suffix(".lock")):
        pass


def test_numbers_survive_the_disk_exactly(ledger: Ledger, cells: list[Cell], run_cells: Callable[..., object]) -> None:
    run_cells(cells[:1], ledger)
    first = ledger.result(cells[0])
    again = Ledger(ledger.folder).result(cells[0])
    assert first.metrics["train_loss"] == again.metrics["train_loss"] == first.history[-1]["train_loss"]


def test_every_file_of_a_finished_cell_has_its_checksum(ledger: Ledger, cells: list[Cell]) -> None:
    record = ledger.record(cells[0].id)
    record.begin(cells[0], {})
    record.append("epoch", epoch=1)
    finish(record)
    stored = json.loads((record.folder / "result.json").read_text())["files"]
    there = {path.name for path in record.folder.iterdir()} - {"lock", "result.json"}
    assert set(stored) == there
    for name, checksum in stored.items():
        content = (record.folder / name).read_bytes()
        assert checksum == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("change", [{"ended": 0.0}, {"metrics": {"accuracy": 0.9}}, {"files": {}}, {"facts": {}}])
def test_a_result_that_was_edited_is_damaged(ledger: Ledger, cells: list[Cell], change: dict[str, object]) -> None:
    record = ledger.record(cells[0].id)
    record.begin(cells[0], {})
    finish(record)
    path = record.folder / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    result = ledger.result(cells[0])
    assert (result.status, result.reason) == ("damaged", "result.json: its content has changed (SHA-256)")
    assert ledger.left_out()[0].startswith(f"damaged and left out: {cells[0].label} ({cells[0].id}): result.json: ")


def test_weights_of_the_same_size_are_read_by_who_asks(ledger: Ledger, cells: list[Cell]) -> None:
    record = ledger.record(cells[0].id)
    record.begin(cells[0], {})
    finish(record)
    (record.folder / "weights.pt").write_bytes(b"WEIGHTS")
    assert ledger.result(cells[0]).status == "finished"
    assert record.damage(weights=True) == "weights.pt: its content has changed (SHA-256)"
    with pytest.raises(DamagedFile, match=r"weights\.pt' is damaged"):
        record.weights()


def test_a_file_that_changes_while_the_process_lives_is_noticed(ledger: Ledger, cells: list[Cell]) -> None:
    record = ledger.record(cells[0].id)
    record.begin(cells[0], {})
    finish(record)
    assert record.damage() == ""
    path = record.folder / "t.parquet"
    content, times = path.read_bytes(), path.stat()
    path.write_bytes(b"x" * len(content))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert record.damage() == "t.parquet: its content has changed (SHA-256)"
    path.write_bytes(content)
    assert record.damage() == ""


def test_a_lost_log_does_not_cost_the_epochs_that_the_checkpoint_knows(ledger: Ledger, cells: list[Cell]) -> None:
    record = ledger.record(cells[0].id)
    record.begin(cells[0], {})
    record.append("epoch", epoch=1, val_accuracy=0.4)
    (record.folder / "events.jsonl").unlink()
    (record.folder / "config.json").write_text("{")
    record.resume(cells[0], 1, {}, [{"epoch": 1, "val_accuracy": 0.4}])
    record.append("epoch", epoch=2, val_accuracy=0.6)
    finish(record)
    result = ledger.result(cells[0])
    assert result.status == "finished"
    assert [(row["epoch"], row["val_accuracy"]) for row in result.history] == [(1, 0.4), (2, 0.6)]
    assert record.cell() == cells[0]


def test_what_is_set_aside_is_kept_whole(ledger: Ledger, cells: list[Cell]) -> None:
    record = ledger.record(cells[0].id)
    record.begin(cells[0], {})
    finish(record)
    (record.folder / "arrays.npz").write_bytes(b"damaged")
    before = {path.name: path.read_bytes() for path in record.folder.iterdir() if path.name != "lock"}
    with record.lock:
        aside = record.set_aside()
        assert {path.name for path in record.folder.iterdir()} == {"lock"}
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == before
    assert ledger.result(cells[0]).status == "pending"


def test_without_checksums_what_cannot_be_opened_is_damaged(
    ledger: Ledger, cells: list[Cell], unseal: Callable[[CellRecord], None]
) -> None:
    record = ledger.record(cells[0].id)
    record.begin(cells[0], {})
    finish(record)
    unseal(record)
    assert ledger.result(cells[0]).status == "finished"
    path = record.folder / "t.parquet"
    path.write_bytes(os.urandom(path.stat().st_size))
    assert ledger.result(cells[0]).reason.startswith("t.parquet: it holds no table")


HOSTILE = [
    {"files": {"/dev/zero": {"size": 0, "sha256": "0"}}},
    {"files": {"../../../../../../etc/passwd": {"size": 1, "sha256": "0"}}},
    {"files": {"a\0b": {"size": 1, "sha256": "0"}}},
    {"files": {"": {"size": 1, "sha256": "0"}}},
    {"files": {"weights.pt": {"size": "1", "sha256": "0"}}},
    {"files": {"weights.pt": [1, 2]}},
    {"files": []},
    {"ended": 10**400},
    {"ended": "soon"},
    {"metrics": {"accuracy": 10**400}},
    {"metrics": [0.5]},
    {"facts": "none"},
]


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: repr(change)[:40])
def test_a_result_of_a_stranger_is_refused(ledger: Ledger, cells: list[Cell], change: dict[str, object]) -> None:
    record = ledger.record(cells[0].id)
    record.begin(cells[0], {})
    finish(record)
    path = record.folder / "result.json"
    content = json.loads(path.read_text()) | change
    del content["sha256"]
    # With the seal that its author can compute as well.
    content["sha256"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(content))
    result = ledger.result(cells[0])
    assert (result.status, result.reason.partition(" (")[0]) == ("damaged", "result.json: it holds no result")


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_only_files_are_read(ledger: Ledger, cells: list[Cell], tmp_path: Path, kind: str) -> None:
    record = ledger.record(cells[0].id)
    record.begin(cells[0], {})
    finish(record)
    path = record.folder / "t.parquet"
    content = path.read_bytes()
    path.unlink()
    if kind == "link":
        (tmp_path / "elsewhere").write_bytes(content)
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert ledger.result(cells[0]).reason == "t.parquet: it is no file, or a link"


def test_the_key_of_the_seal_cannot_be_lost(ledger: Ledger, cells: list[Cell]) -> None:
    record = ledger.record(cells[0].id)
    record.begin(cells[0], {})
    finish(record)
    path = record.folder / "result.json"
    path.write_text(path.read_text().replace('"sha256": "', '"sha257": "', 99).replace("sha257", "sha256", 5))
    assert ledger.result(cells[0]).status == "damaged"


@pytest.mark.parametrize(
    "line",
    [
        {"event": "resumed", "epoch": 1, "rows": 5},
        {"event": "resumed", "epoch": 1, "rows": [5]},
        {"event": "failed", "reason": ""},
        {"event": "failed", "reason": 5},
        {"event": "epoch", "epoch": "1"},
        {"event": "epoch"},
        {"event": ["epoch"]},
        {"event": "unheard of"},
        {},
    ],
    ids=repr,
)
def test_events_of_another_shape_are_ignored(ledger: Ledger, cells: list[Cell], line: dict[str, object]) -> None:
    record = ledger.record(cells[0].id)
    record.begin(cells[0], {})
    with open(record.folder / "events.jsonl", "a") as file:
        file.write(json.dumps({"time": 1.0, **line}) + "\n" + json.dumps({**line, "time": "now"}) + "\n[1]\n5\n")
    record.append("epoch", epoch=1)
    assert [row["epoch"] for row in ledger.result(cells[0]).history] == [1]


@pytest.mark.parametrize(
    "change",
    [{"started": 10**400}, {"started": "now"}, {"ended": []}, {"command": 5}, {"outcome": 5}, {"preset": None}],
)
def test_a_command_of_another_shape_is_left_out(ledger: Ledger, change: dict[str, object]) -> None:
    with ledger.open_invocation("poolbench run tiny", "smoke") as invocation:
        pass
    invocation.path.write_text(json.dumps(invocation.content | change))
    assert ledger.invocations() == []
    (line,) = ledger.left_out()
    assert f"{invocation.id}.json' is damaged" in line
