"""The report on tuning: what each study tried and spent, and whether the order of the rivals survives it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from poolbench.analysis.groups import Group, groups_of
from poolbench.analysis.images import ImageValues
from poolbench.analysis.statistics import seeds_estimate
from poolbench.analysis.text import interval_text, rounded
from poolbench.analysis.tuning import Rival, Survival, survival
from poolbench.choice import Choice
from poolbench.core import Cell, Metric, Scalar
from poolbench.registry import benchmarks, heads, pools
from poolbench.runner.evidence import Evidence
from poolbench.task import Benchmark
from poolbench.tune.record import Confirmation, StudyRecord


@dataclass(frozen=True)
class StudyRow:
    """A study as a row: who was tuned, trials by state, time, and what was confirmed on fresh seeds."""

    name: str
    trials: str
    spent: str
    confirmed: Sequence[tuple[str, str, str]]
    outcome: str


@dataclass(frozen=True)
class TuningSection:
    """The studies of one task, and the survival of each of its choices with default and tuned networks on test images.

    ``objectives`` are the titles of what was optimised. ``unequal`` says so if the budgets differ, which is unfair.
    ``survivals`` are empty until ``run`` has trained rivals both ways.
    """

    benchmark: Benchmark
    objectives: Sequence[str]
    unequal: str
    studies: Sequence[StudyRow]
    survivals: Sequence[tuple[str, Survival]]


def tuning_sections(records: Sequence[StudyRecord], found: Evidence) -> Iterator[TuningSection]:
    """Yield a section per task and design, for studies whose names are registered."""
    parts: dict[tuple[str, str], list[StudyRecord]] = {}
    for record in records:
        if not record.unregistered:
            parts.setdefault((record.cell.benchmark, str(record.design.config())), []).append(record)
    groups = {group.id: group for group in groups_of(found.results)}
    for (name, _), members in parts.items():
        benchmark: Benchmark = benchmarks.get(name)()
        metrics = [benchmark.metric(objective) for objective in members[0].design.objectives]
        yield TuningSection(
            benchmark,
            [metric.title for metric in metrics],
            _unequal(members),
            [_row(record, metrics) for record in members],
            list(_survivals(benchmark, members, groups, found.images)),
        )


def _unequal(records: Sequence[StudyRecord]) -> str:
    counts = sorted({len(record.trials) for record in records})
    if len(counts) == 1:
        return ""
    return f"Unequal budgets: the studies have {counts[0]} to {counts[-1]} trials, and more trials find more."


def _row(record: StudyRecord, metrics: Sequence[Metric]) -> StudyRow:
    states = [trial.state for trial in record.trials]
    counts = {"in full": "complete", "stopped early": "pruned", "infeasible": "infeasible"}
    trials = ", ".join(f"{states.count(state)} {text}" for text, state in counts.items() if state in states)
    spent = f"{_time(record.seconds)} + {_time(record.confirmation_seconds)}"
    confirmed = [(record.role(one), _values(one, metrics), _chosen(one.parameters)) for one in record.confirmed]
    if record.confirmed and record.default is None:
        reason = (
            next((t.reason for t in record.trials if dict(t.parameters) == _default(record)), "") or "on fresh seeds"
        )
        confirmed.insert(0, ("default, infeasible", "-", reason))
    outcome = record.failure or "going on: the same command continues it"
    return StudyRow(study_name(record.cell), trials or "none", spent, confirmed, outcome)


def _default(record: StudyRecord) -> dict[str, Scalar]:
    return {name: record.cell.fields[name] for name in record.distributions}


def study_name(cell: Cell) -> str:
    """Return what a study is called beside others of its task."""
    operators = (pools.written(cell.pool), heads.written(cell.head))
    return " ".join([cell.variant, cell.architecture.name, cell.dataset.name, *operators])


def _values(one: Confirmation, metrics: Sequence[Metric]) -> str:
    """Return the means over the fresh seeds with their intervals; their number was fixed before."""
    texts = [
        interval_text(seeds_estimate(one.values[metric.name]).planned_interval().within(*metric.bounds), metric)
        if metric.scale == "linear"
        else rounded(one.mean(metric.name), metric)
        for metric in metrics
    ]
    return ", ".join(texts)


def _chosen(parameters: Mapping[str, Scalar]) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in parameters.items()
    )


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _survivals(
    benchmark: Benchmark, records: Sequence[StudyRecord], groups: Mapping[str, Group], images: ImageValues
) -> Iterator[tuple[str, Survival]]:
    """Yield (setting, survival) for each choice and metric with two rivals or more that ran both ways."""
    for choice in benchmark.choices:
        settings: dict[str, list[Rival]] = {}
        headings: dict[str, str] = {}
        for record in records:
            default, tuned = groups.get(record.cell.group), record.tuned and groups.get(record.tuned.group)
            if default and tuned:
                name = _name(record.cell, choice)
                setting = _setting(record.cell, choice)
                headings[setting] = f"{choice.field}: {_heading(record.cell)}"
                settings.setdefault(setting, []).append(Rival(name, default, tuned))
        for setting, rivals in settings.items():
            for metric in [benchmark.metric(name) for name in choice.metrics] if len(rivals) > 1 else []:
                yield headings[setting], survival(rivals, metric, images)


def _name(cell: Cell, choice: Choice) -> str:
    """Return the value of a choice with the options that are not defaults."""
    registry = {"pool": pools, "head": heads}.get(choice.field)
    return registry.written(getattr(cell, choice.field)) if registry else str(cell.fields[choice.field])


def _heading(cell: Cell) -> str:
    images = f"{cell.train.train_images:,}" if cell.train.train_images else "all"
    epochs = f"{cell.train.epochs} epoch{'s' if cell.train.epochs > 1 else ''}"
    return f"{cell.architecture.name}, {cell.dataset.name}, {cell.variant}, {epochs} of {images} images"


def _setting(cell: Cell, choice: Choice) -> str:
    """Return what rivals of a choice have in common: everything but the field and its options."""
    shared = {
        name: value
        for name, value in cell.fields.items()
        if name != choice.field and not name.startswith(f"{choice.field}.")
    }
    return ", ".join(f"{name} {value}" for name, value in shared.items())
