"""What MLflow runs contain: the run of one seed, that of its comparison group, and that of one command."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean
from typing import TYPE_CHECKING, Any

from poolbench.analysis.effects import group_interval
from poolbench.analysis.groups import Group
from poolbench.analysis.images import ImageValues
from poolbench.analysis.text import decimals
from poolbench.core import COST_METRICS, Cell, Metric, Result
from poolbench.runner.evidence import Evidence
from poolbench.runner.gpu import PREFIX as GPU
from poolbench.runner.invocation import Invocation
from poolbench.task import Benchmark
from poolbench_tracking.mlflow_files import artifacts, log_files
from poolbench_tracking.mlflow_names import (
    COST,
    HALF_WIDTH,
    HIGH,
    LOW,
    curve_key,
    group_name,
    metric_key,
    split_settings,
)
from poolbench_tracking.mlflow_store import Store, milliseconds

if TYPE_CHECKING:
    from mlflow.entities import Run

KIND, CELL, GROUP, ATTEMPT, INVOCATION, CLOSED, FOLDER, LEARNED, DIGEST = (
    f"poolbench.{name}"
    for name in ("kind", "cell", "group", "attempt", "invocation", "closed", "folder", "learned", "digest")
)
PARENT, NOTE = "mlflow.parentRunId", "mlflow.note.content"
BATCH_LIMIT = 1000  # metrics that MLflow accepts per call
FORMAT = "2"
"""Raised when the numbers or names in the run of a group change: older runs are written again."""
SECONDS = ("seconds_fit", "seconds_measure")
LONG = 30.0
"""Seconds. The state of the GPU in shorter trainings says nothing."""


@dataclass(frozen=True)
class Members:
    """The finished and failed cells of one comparison group, in order of seed, and the fields that vary in its task.

    ``evidence`` has their stored data; a cell that has just ended is written without.
    """

    benchmark: Benchmark
    results: Sequence[Result]
    varying: Sequence[str]
    evidence: Evidence | None = None

    @property
    def cell(self) -> Cell:
        """A cell of the group."""
        return self.results[0].cell

    @property
    def finished(self) -> Group:
        """The finished cells."""
        found = [result for result in self.results if result.status == "finished"]
        return Group(self.cell.group, self.cell.fields, found)

    @property
    def digest(self) -> str:
        """What the numbers of the group's run depend on: attempts, and who has learned."""
        parts = [FORMAT, *(f"{result.cell.id} {attempt_of(result)} {learned_of(result)}" for result in self.results)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """The name of the group's run."""
        first = self.benchmark.choices[0].field if self.benchmark.choices else "pool"
        return group_name(self.cell.fields, self.varying, first)


def attempt_of(result: Result) -> str:
    """Return the tag value that identifies one attempt at a cell: when it ended."""
    return f"{result.ended:.6f}"


def learned_of(result: Result) -> str:
    """Return the tag value that says whether the network has learned; "" if it was not judged (a failed cell)."""
    return str(result.facts.get("learned", ""))


def create_group_run(store: Store, experiment: str, members: Members) -> str:
    """Create the run of a comparison group without its numbers; return its id. It stays RUNNING."""
    params, tags = split_settings(members.cell.fields, members.varying)
    started = min(result.started or 0.0 for result in members.results)
    own = {KIND: "group", GROUP: members.cell.group, FOLDER: store.folder_id, DIGEST: ""}
    run = store.client.create_run(experiment, milliseconds(started), {**tags, **own}, members.name)
    store.client.log_batch(run.info.run_id, params=_params(params))
    return str(run.info.run_id)


def create_cell_run(store: Store, experiment: str, members: Members, result: Result, parent: str) -> str:
    """Create the run of a cell with its numbers, below the run of its group; return its id.

    Settings that do not vary in the task are tags of the group alone: half of the time to write a run is that of its
    tags.
    """
    params, _ = split_settings(result.cell.fields, members.varying)
    tags = _cell_tags(result) | {FOLDER: store.folder_id, PARENT: parent}
    run = store.client.create_run(experiment, milliseconds(result.started), tags, f"seed {result.cell.seed}")
    run_id = str(run.info.run_id)
    log(store, run_id, _cell_metrics(members.benchmark, result), {**params, "seed": str(result.cell.seed)})
    if result.traceback:
        with artifacts(store, run_id) as folder:
            (folder / "traceback.txt").write_text(result.traceback)
    state = "FINISHED" if result.status == "finished" else "FAILED"
    store.client.set_terminated(run_id, state, end_time=milliseconds(result.ended))
    return run_id


def fill_group_run(store: Store, run_id: str, members: Members) -> None:
    """Log the means, curves, data set, tables and figures of a group, and end its run.

    It is complete when it is sealed: see :func:`seal_group_run`.
    """
    group, evidence = members.finished, members.evidence
    ended = max(result.ended or 0.0 for result in members.results)
    if group.results and evidence is not None:
        log(store, run_id, [*_group_metrics(members, evidence.images, ended), *_mean_curves(group, ended)], {})
        _log_data(store, run_id, group.results[0])
        records = {result.cell.id: evidence.record(result.cell.id) for result in members.results}
        log_files(store, run_id, members.benchmark, group, records)
    state = "FINISHED" if group.results else "FAILED"
    store.client.set_terminated(run_id, state, end_time=milliseconds(ended))


def seal_group_run(store: Store, run_id: str, members: Members) -> None:
    """Tag a group's run as complete. This is the last step: a run without its digest is written again."""
    store.client.set_tag(run_id, DIGEST, members.digest)


def is_sealed(run: Run, members: Members) -> bool:
    """Return whether the run of a group is complete and has the numbers of these networks."""
    return bool(run.data.tags.get(DIGEST) == members.digest)


@dataclass(frozen=True)
class Changes:
    """What is to be corrected in a complete run of a group, because it depends on other groups."""

    name: str | None
    params: Mapping[str, str]
    tags: Mapping[str, str]

    def __bool__(self) -> bool:
        return bool(self.name or self.params or self.tags)

    def write(self, store: Store, run: Run) -> None:
        """Correct the run."""
        if self.name:
            store.client.update_run(run.info.run_id, name=self.name)
        add_params(store, run, self.params)
        for key, value in self.tags.items():
            store.client.set_tag(run.info.run_id, key, value)


def changes_of(run: Run, members: Members, note: str) -> Changes:
    """Return what differs in the name, the settings that vary and the description of a group's run."""
    params, tags = split_settings(members.cell.fields, members.varying)
    return Changes(
        members.name if run.info.run_name != members.name else None,
        {key: value for key, value in params.items() if key not in run.data.params},
        {key: value for key, value in {**tags, NOTE: note}.items() if run.data.tags.get(key, "") != value},
    )


def add_params(store: Store, run: Run, params: Mapping[str, str]) -> None:
    """Log the parameters that a run lacks: parameters cannot be changed."""
    missing = {key: value for key, value in params.items() if key not in run.data.params}
    if missing:
        store.client.log_batch(run.info.run_id, params=_params(missing))


def create_invocation_run(store: Store, experiment: str, invocation: Invocation) -> str:
    """Create the run of a command; return its id. It stays RUNNING."""
    content = invocation.content
    tags = {KIND: "command", INVOCATION: invocation.id, "mlflow.source.name": content["command"]}
    run = store.client.create_run(experiment, milliseconds(content["started"]), tags, content["command"])
    store.client.log_batch(run.info.run_id, params=_params(_command_params(content)))
    return str(run.info.run_id)


def _command_params(content: Mapping[str, Any]) -> dict[str, str]:
    return {"preset": content["preset"]}


def close_invocation_run(store: Store, run_id: str, invocation: Invocation, members: Sequence[Result]) -> None:
    """Log what became of the cells of a command, and where they ran; end its run, KILLED if its process died."""
    content = invocation.content
    last = content["ended"] or max([content["started"], *(r.ended or 0 for r in members)])
    counts = {f"cells_{status}": sum(r.status == status for r in members) for status in ("finished", "failed")}
    metrics = {**counts, "seconds": last - content["started"]}
    # With the parameters: whoever created the run may have been killed before it wrote them.
    log(store, run_id, [point(key, float(value), last) for key, value in metrics.items()], _command_params(content))
    environment: Mapping[str, Any] = next((r.facts["environment"] for r in members if "environment" in r.facts), {})
    for key, value in _environment_tags(environment).items():
        store.client.set_tag(run_id, key, value)
    state = {"finished": "FINISHED", "failed": "FAILED"}.get(content.get("outcome", ""), "KILLED")
    store.client.set_terminated(run_id, state, end_time=milliseconds(last))
    # Last: a run without it is closed again.
    store.client.set_tag(run_id, CLOSED, str(content["ended"]))


def log(store: Store, run_id: str, metrics: Sequence[Any], params: Mapping[str, str]) -> None:
    """Log metrics and parameters in as few calls as MLflow allows."""
    store.client.log_batch(run_id, metrics=metrics[:BATCH_LIMIT], params=_params(params))
    for start in range(BATCH_LIMIT, len(metrics), BATCH_LIMIT):
        store.client.log_batch(run_id, metrics=metrics[start : start + BATCH_LIMIT])


def point(key: str, value: float, seconds: float, step: int = 0) -> Any:
    """Return one value of a metric, at a time in seconds since 1970."""
    from mlflow.entities import Metric as Point

    return Point(key, value, int(seconds * 1000), step)


def _cell_metrics(benchmark: Benchmark, result: Result) -> list[Any]:
    """Return the finite metrics of every epoch, with step and time, and the final ones."""
    with_gpu = result.facts.get("seconds_fit", 0.0) > LONG
    found = [
        point(curve_key(name), value, row["time"], int(row["epoch"]))
        for row in result.history
        for name, value in _curve_values(row, with_gpu)
    ]
    final = {metric_key(name, benchmark): value for name, value in result.metrics.items()}
    final |= {f"{COST}/{name}": result.facts[name] for name in SECONDS if name in result.facts}
    return found + [point(key, float(v), result.ended or 0.0) for key, v in final.items() if isfinite(v)]


def _group_metrics(members: Members, images: ImageValues, ended: float) -> list[Any]:
    """Return the mean of every metric with its interval, the number of networks, and the share that has learned."""
    group = members.finished
    values = {"n": float(len(group.learned)), "learned": len(group.learned) / len(group.results)}
    for metric in members.benchmark.metrics:
        values |= _interval(group, metric, metric_key(metric.name, members.benchmark), images)
    for metric in COST_METRICS:
        least = group.least(metric.name)
        # No time is known to a nanosecond, and the UI shows all digits.
        values |= {} if least is None else {metric_key(metric.name, members.benchmark): round(least, 3)}
    return [point(key, value, ended) for key, value in values.items() if isfinite(value)]


def _interval(group: Group, metric: Metric, key: str, images: ImageValues) -> dict[str, float]:
    """Return the mean and the longer side of its interval; for logarithmic metrics both ends."""
    found = group_interval(group, metric, images)
    if found is None:
        return {}
    values = {key: found.mean}
    if found.is_bounded and metric.scale == "log":
        values |= {f"{LOW}/{key}": found.low, f"{HIGH}/{key}": found.high}
    elif found.is_bounded:
        # An interval may end at a bound of its metric: the longer side holds for both.
        values[f"{HALF_WIDTH}/{key}"] = max(found.mean - found.low, found.high - found.mean)
    # The UI shows all digits. One more than tables have is enough to read, and those of the seeds are complete.
    return {name: _rounded(value, decimals(metric) + 1) for name, value in values.items()}


def _rounded(value: float, places: int) -> float:
    """Return a value with that many decimals, or with two digits if nothing else were left of it."""
    return round(value, places) or float(f"{value:.2g}")


def _mean_curves(group: Group, ended: float) -> list[Any]:
    """Return the mean over the networks that have learned of every metric of the history, epoch by epoch."""
    values: dict[tuple[str, int], list[float]] = {}
    for result in group.learned:
        for row in result.history:
            for name, value in _curve_values(row):
                values.setdefault((name, int(row["epoch"])), []).append(value)
    return [point(curve_key(name), fmean(found), ended, epoch) for (name, epoch), found in values.items()]


def _curve_values(row: Mapping[str, float], with_gpu: bool = False) -> Iterator[tuple[str, float]]:
    """Yield the finite metrics of an epoch by name, and the state of the GPU if wanted."""
    for name, value in row.items():
        if name not in ("epoch", "time") and isfinite(value) and (with_gpu or not name.startswith(GPU)):
            yield name, value


def _log_data(store: Store, run_id: str, result: Result) -> None:
    if "data" not in result.facts:
        return
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.exceptions import MlflowException

    data = result.facts["data"]
    entry = Dataset(data["name"], data["digest"][:36], "local", json.dumps({"source": data["source"]}))
    inputs = [DatasetInput(entry, [InputTag("mlflow.data.context", "training")])]
    try:
        store.client.log_inputs(run_id, inputs)
    except MlflowException:
        # A server fails if two writers enter the same data set of an experiment at once. Now it is there.
        store.client.log_inputs(run_id, inputs)


def _cell_tags(result: Result) -> dict[str, str]:
    facts = result.facts
    tags = {
        KIND: "seed",
        CELL: result.cell.id,
        GROUP: result.cell.group,
        ATTEMPT: attempt_of(result),
        LEARNED: learned_of(result),
        INVOCATION: str(facts.get("invocation", "")),
        "mlflow.source.name": "poolbench",
        NOTE: f"`{result.cell.label}`",
        **_environment_tags(facts.get("environment", {})),
    }
    return tags | ({"poolbench.reason": result.reason[:1000]} if result.reason else {})


def _environment_tags(environment: Mapping[str, Any]) -> dict[str, str]:
    values = dict(environment)
    commit = {"mlflow.source.git.commit": str(values.pop("git_commit", ""))} if values else {}
    return commit | {f"env.{key}": str(value) for key, value in values.items()}


def _params(values: Mapping[str, Any]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(key, str(value)) for key, value in values.items()]
