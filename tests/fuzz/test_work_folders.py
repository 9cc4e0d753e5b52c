"""Work folders of strangers: what a file holds, and what lies in its place, costs itself and nothing else."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution, distribution_to_json

from poolbench import registry
from poolbench.analysis.frames import results_frame
from poolbench.analysis.runs import group_runs
from poolbench.claim import Claim
from poolbench.core import Cell, Measurement
from poolbench.decide import Question, outlooks, questions
from poolbench.plots import curves
from poolbench.runner.cell_record import CellRecord
from poolbench.runner.evidence import read_evidence
from poolbench.runner.examine import examine_ledger
from poolbench.runner.ledger import Ledger
from poolbench.runner.merge import merge
from poolbench.runner.standing import Standing, publish, published
from poolbench.runner.watch import Watch
from poolbench.task import Benchmark, Figure
from poolbench.tune.design import Budget, Design
from poolbench.tune.examine import examine_studies
from poolbench.tune.record import Confirmation, StudyRecord, Trial, records
from poolbench_tracking.history import night_of
from poolbench_tracking.provenance import provenance
from poolbench_tracking.report import write_report
from poolbench_tracking.tuning_section import tuning_sections

NUMBERS = (1e300, -1e18, 1e149, -1.0, 10**400, float("nan"), float("inf"), 253_402_300_799.99, True)
"""Numbers that JSON holds and that calendars, squares or floats do not."""
values = st.recursive(
    st.none() | st.sampled_from(NUMBERS) | st.integers(-2, 2) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
)
Change = Callable[[Any], None]


def places(document: Any) -> list[tuple[Any, Any]]:
    """Return (holder, key) of every value inside a JSON document, but for checksums."""
    inside = document.items() if isinstance(document, dict) else enumerate(document)
    found = [(document, key) for key, _ in inside if key != "files"]
    return found + [
        place for holder, key in found if isinstance(holder[key], dict | list) for place in places(holder[key])
    ]


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """Return what replaces one to three values of a JSON document, or adds one beside the last."""
    drawn = draw(st.lists(st.tuples(st.integers(0, 10**6), values), min_size=1, max_size=3))
    added = draw(st.sampled_from((None, None, None, "", "x")))

    def change(document: Any) -> None:
        for number, value in drawn:
            known = places(document)
            holder, key = known[number % len(known)]
            holder[key] = copy.deepcopy(value)
        if added is not None and isinstance(holder, dict):
            holder[added] = value

    return change


def written(path: Path, change: Change) -> None:
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))


def forge(cell: Path, change: Change) -> None:
    """Change the result of a cell, with the seal that its author can compute as well."""
    path = cell / "result.json"
    content = json.loads(path.read_bytes())
    del content["sha256"]
    change(content)
    content["sha256"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(content))


def forge_log(cell: Path, change: Change) -> None:
    """Change the event log of a cell and the checksum that its result has of it."""
    path = cell / "events.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    change(events)
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    checksum = {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    forge(cell, lambda content: content["files"].update({"events.jsonl": checksum}))


def hurt(out: Path, kind: str, change: Change, count: int) -> None:
    """Change one kind of file of a work folder; of ``count`` cells, in one way."""
    if kind == "command":
        written(next(out.glob("invocations/*.json")), change)
    elif kind == "study":
        written(next(out.glob("tuning/*/study.json")), change)
    else:
        for cell in sorted(out.glob("cells/*"))[:count]:
            (forge if kind == "result" else forge_log)(cell, change)


def judged(benchmark: Benchmark) -> Benchmark:
    """Return a benchmark with a claim and a figure, so that reports read what its cells hold."""
    claim = Claim("max_wins", "Max wins.", "Somebody", "accuracy", better={"pool": "max"}, worse={"pool": "avg"})
    draw = Figure("curves", "Curves", "", lambda scene: curves.learning_curves(scene, ("val_loss",), label="loss"))
    return replace(benchmark, claims=(claim,), figures=(draw,))


def study_of(cell: Cell) -> StudyRecord:
    default, found = {"learning_rate": 1e-3}, {"accuracy": [0.5, 0.6]}
    trials = [
        Trial(0, "complete", default, found, 1.0, 1e9, 1e9 + 1),
        Trial(1, "infeasible", {"learning_rate": 1.0}, {}, 0.0, 1e9, 1e9, "diverged"),
    ]
    ranges = {"learning_rate": distribution_to_json(FloatDistribution(1e-4, 1.0, log=True))}
    confirmed = [Confirmation(0, True, default, found)]
    return StudyRecord("a", cell, Design(seeds=2), ranges, Budget(2), trials, confirmed, default, 2.0)


def finish(record: CellRecord, cell: Cell) -> None:
    """Write a finished cell as a training does."""
    environment = {"torch": "2.0", "device": "cpu", "kernel_variables": {}, "threads": 1, "git_commit": ""}
    record.begin(cell, {"invocation": "a", "environment": environment, "plugins": []})
    for epoch in (1, 2):
        record.append("epoch", epoch=epoch, train_loss=0.7, train_accuracy=0.5, val_loss=0.7, val_accuracy=0.5)
    facts = {
        "data": {"name": "tiny", "digest": "0123", "source": "made here"},
        "images": {"accuracy": 40},
        **{"seconds_load": 0.1, "seconds_fit": 0.2, "seconds_measure": 0.1},
        **{"chance": 0.5, "commonest": 0.6, "replicas": 1},
    }
    answers = pd.DataFrame({"label": [0, 1], "decision": [0, 0], "correct": [1, 0]}, dtype="int32")
    record.finish(Measurement({"accuracy": 0.9 - 0.01 * cell.seed}, {"answers": answers}), facts, b"weights")


@pytest.fixture
def work(ledger: Ledger, cells: list[Cell], monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """A work folder of finished cells, with a command that runs and a study."""
    make = registry.benchmarks.get("tiny")
    monkeypatch.setitem(registry.benchmarks._entries, "tiny", registry.Entry("tiny", lambda: judged(make())))
    for cell in cells:
        finish(ledger.record(cell.id), cell)
    folder = ledger.folder / "tuning" / "a"
    folder.mkdir(parents=True)
    study_of(cells[0]).write(folder)
    (folder.parent / "journal.log").touch()
    invocation = ledger.open_invocation("poolbench run tiny", "quick")
    publish(invocation, Standing(1, 4, 0, 2e9))
    yield ledger
    invocation.lock.release(force=True)


def read_everything(ledger: Ledger, asked: Sequence[Question]) -> None:
    """Do what status, doctor, claims, regress and report do with a work folder."""
    found = read_evidence(ledger)
    list(examine_ledger(ledger))
    list(examine_studies(ledger.folder))
    Watch(ledger).look()
    outlooks(ledger, asked)
    group_runs(results_frame(found.results))
    if found.results:
        night_of(found.results)
    lines = list(found.left_out)
    list(tuning_sections(records(ledger.folder, lines.append), found))
    provenance(found.results, ledger.invocations(), lines)


@pytest.mark.parametrize("kind", ["result", "log", "command", "study"])
def test_what_a_file_holds_stops_no_command(work: Ledger, cells: list[Cell], tmp_path: Path, kind: str) -> None:
    asked = questions(cells, "quick")

    # An example takes as long as several elsewhere.
    @settings(max_examples=settings.default.max_examples // 4)
    @given(changes(), st.sampled_from((1, 4)))
    def check(change: Change, count: int) -> None:
        copied = tmp_path / "copy"
        shutil.copytree(work.folder, copied)
        try:
            hurt(copied, kind, change, count)
            read_everything(Ledger(copied), asked)
        finally:
            shutil.rmtree(copied)

    check()


def at(path: str, value: Any) -> Change:
    """Return what puts a value at a path like "trials.0.seconds" of a JSON document."""

    def change(document: Any) -> None:
        *way, last = [int(name) if name.isdecimal() else name for name in path.split(".")]
        for name in way:
            document = document[name]
        document[last] = value

    return change


TIMES = (1e300, -1e18, -1, float("nan"), float("inf"), 253_402_300_800, 10**400, "1.0", True, [1], None)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(("ended", value) for value in TIMES),
        *(("metrics.accuracy", value) for value in ("0.5", True, [1], 1e308, 10**400, float("inf"))),
        *(("facts.seconds_load", value) for value in ([1], "x", 1e308, -1.0, float("nan"))),
        *(("facts.chance", value) for value in ("x", None, 1e308, float("nan"))),
        *(("facts.images", value) for value in (5, {"accuracy": "many"}, {"accuracy": 10**30}, {"accuracy": True})),
        *(("facts.data", value) for value in ("x", {}, {"name": [1], "digest": "", "source": ""})),
        ("facts.commonest", [1]),
        ("facts.replicas", "x"),
        ("facts.environment", []),
        ("facts.plugins", [1]),
        ("facts", [1]),
        ("metrics", 5),
    ],
)
def test_a_forged_result_costs_its_cell(work: Ledger, cells: list[Cell], path: str, value: Any) -> None:
    forge(work.record(cells[0].id).folder, at(path, value))
    result = work.result(cells[0])
    assert (result.status, result.reason) == ("damaged", "result.json: it holds no result (TypeError)")
    assert [work.result(cell).status for cell in cells[1:]] == ["finished"] * 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("time", value) for value in TIMES),
        *(("environment", value) for value in ("text", [1], None)),
        *(("plugins", value) for value in (5, "x", [1])),
        ("invocation", ["a"]),
    ],
)
def test_a_start_of_another_type_is_no_start(work: Ledger, cells: list[Cell], name: str, value: Any) -> None:
    record = work.record(cells[0].id)
    forge_log(record.folder, at(f"0.{name}", value))
    result = work.result(cells[0])
    assert (result.status, result.reason) == ("damaged", "events.jsonl: it does not tell when the cell was started")
    # What sets damaged cells aside agrees.
    assert record.damage() == result.reason


@pytest.mark.parametrize(
    ("name", "value"), [("val_loss", "x"), ("train_loss", [1]), ("epoch", 10**30), ("time", 1e300)]
)
def test_an_epoch_of_another_type_is_ignored(work: Ledger, cells: list[Cell], name: str, value: Any) -> None:
    forge_log(work.record(cells[0].id).folder, at(f"1.{name}", value))
    assert [row["epoch"] for row in work.result(cells[0]).history] == [2]


def test_a_loss_that_is_not_finite_is_an_epoch(work: Ledger, cells: list[Cell]) -> None:
    forge_log(work.record(cells[0].id).folder, at("1.val_loss", float("inf")))
    assert len(work.result(cells[0]).history) == 2


@pytest.mark.parametrize("name", ["started", "ended"])
@pytest.mark.parametrize("value", [value for value in TIMES if value is not None])
def test_a_command_of_another_time_costs_itself(work: Ledger, name: str, value: Any) -> None:
    (path,) = work.folder.glob("invocations/*.json")
    written(path, at(name, value))
    assert work.invocations() == []
    (line,) = work.left_out()
    assert str(path) in line


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *((f"trials.0.{name}", value) for name in ("started", "seconds") for value in TIMES),
        *(("confirmation_seconds", value) for value in TIMES),
        *(("confirmed.0.values", value) for value in ([1], {}, {"accuracy": []}, {"accuracy": ["x"]}, {"accuracy": 1})),
        *(("confirmed.0.parameters", value) for value in ([1], "x", {"learning_rate": [1]})),
        *(("design.objectives", value) for value in (5, "accuracy", [], [1], [[]])),
        *(("best", value) for value in ("x", {"learning_rate": "x"}, {"epochs": -1}, {"augment": 5})),
        ("trials.0.values", {"accuracy": [float("nan")]}),
        ("trials.0.state", ["complete"]),
        ("trials.0.reason", 5),
        ("confirmed.0.is_default", 2),
        ("design.limits", {"accuracy": "x"}),
        ("budget.trials", "x"),
        ("distributions", {"nothing": "x"}),
        ("failure", 5),
        ("id", 5),
    ],
)
def test_a_study_of_another_type_costs_itself(work: Ledger, path: str, value: Any) -> None:
    written(next(work.folder.glob("tuning/*/study.json")), at(path, value))
    lines: list[str] = []
    assert records(work.folder, lines.append) == []
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("design.objectives", ["speed"], "no objective 'speed'"),
        ("cell.pool.name", "unheard", "no pool 'unheard'"),
        ("cell.benchmark", "unheard", "no benchmark 'unheard'"),
    ],
)
def test_a_study_of_unknown_names_is_left_out_of_the_report(work: Ledger, path: str, value: Any, said: str) -> None:
    def change(content: Any) -> None:
        at(path, value)(content)
        for one in (content["trials"][0], content["confirmed"][0]):
            one["values"] = {name: [0.5, 0.6] for name in content["design"]["objectives"]}

    written(next(work.folder.glob("tuning/*/study.json")), change)
    page = write_report(work, work.folder / "report")
    assert f"study a left out: {said}" in page.with_suffix(".md").read_text()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listener(path: Path) -> None:
    # The path may be longer than that of a socket may be.
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{os.open(path.parent, os.O_RDONLY)}/{path.name}")


def device(path: Path) -> None:
    path.symlink_to(os.devnull)


@pytest.fixture
def patience() -> Iterator[None]:
    """Fail after a minute: what waits for a pipe waits for ever."""

    def end(*_: Any) -> None:
        pytest.fail("it waits")

    signal.signal(signal.SIGALRM, end)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("make", [pipe, listener, device, Path.mkdir])
def test_only_files_are_read(work: Ledger, cells: list[Cell], tmp_path: Path, make: Callable[[Path], None]) -> None:
    names = ("config.json", "events.jsonl", "result.json")
    places = [work.record(cell.id).folder / name for cell, name in zip(cells, names, strict=False)]
    places += [next(work.folder.glob(f"{place}")) for place in ("invocations/*.json", "tuning/*/study.json")]
    places += [work.folder / "tuning" / "journal.log", next(work.folder.glob("invocations/*.progress"))]
    (running,) = work.invocations()
    for path in places:
        path.unlink()
        make(path)
    found = read_evidence(work)
    assert [result.cell for result in found.results if result.status == "finished"] == [cells[3]]
    said = " ".join(found.left_out)
    assert all(
        f"{path.name}: it is no file" in said or f"{path}' is damaged: it is no file" in said for path in places[:4]
    )
    assert published(running) is None
    read_everything(work, questions(cells, "quick"))
    assert len([*examine_ledger(work), *examine_studies(work.folder)]) == 6
    merged = merge(work, Ledger(tmp_path / "merged").create())
    assert (merged.copied, len(merged.damaged)) == (1, 3)
    write_report(work, work.folder / "report")


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("make", [pipe, listener, device, Path.mkdir])
def test_what_lies_in_the_place_of_a_checkpoint_is_moved_away(
    ledger: Ledger, cells: list[Cell], make: Callable[[Path], None]
) -> None:
    record = ledger.record(cells[0].id)
    record.begin(cells[0], {})
    make(record.folder / "checkpoint.pt")
    assert record.checkpoint() is None
    assert not os.path.lexists(record.folder / "checkpoint.pt")
