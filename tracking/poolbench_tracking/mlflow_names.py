"""How things are called in MLflow: metrics, parameters, groups, so that what readers compare comes first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from poolbench.analysis.groups import AXES
from poolbench.analysis.text import term
from poolbench.core import COST_METRICS, Scalar
from poolbench.runner.gpu import PREFIX as GPU
from poolbench.task import Benchmark

TOP = ("accuracy", "loss")
"""Metrics without a folder: every task has them."""
COSTS = frozenset(metric.name for metric in COST_METRICS)
CURVE, COST, DETAILS, HALF_WIDTH, LOW, HIGH = "curve", "cost", "details", "half_width", "low", "high"
SYSTEM = "system"


def metric_key(name: str, benchmark: Benchmark) -> str:
    """Return the key of a metric of a cell: its own for accuracy and loss, else "folder/name".

    Folders: the task's first word for headline metrics ("shift/exact_consistency"), "cost", and "details" for others.
    """
    if name in TOP:
        return name
    if name in COSTS:
        return f"{COST}/{name.removeprefix('cost_')}"
    headline = any(metric.name == name and metric.headline for metric in benchmark.metrics)
    return f"{folder_of(benchmark)}/{name}" if headline else f"{DETAILS}/{name}"


def folder_of(benchmark: Benchmark) -> str:
    """Return the folder of a task's headline metrics: the first word of its name."""
    return benchmark.name.partition("_")[0]


def curve_key(name: str) -> str:
    """Return the key of a metric of the training history; the UI has a page for the state of the GPU."""
    return f"{SYSTEM}/{name}" if name.startswith(GPU) else f"{CURVE}/{name}"


def group_name(fields: Mapping[str, Scalar], varying: Sequence[str], first: str) -> str:
    """Return the name of a comparison group as a reader would say it: what differs, "max_aps · vgg_like · circular".

    The field ``first`` comes first, if it varies: names are cut at the end.
    """
    ordered = sorted(varying, key=lambda name: name != first)
    told = {name: term(name, _short(fields[name])) for name in ordered if fields.get(name) is not None}
    telling = [text for name, text in told.items() if name == first or text not in ("default", "none")]
    return " · ".join(telling or told.values()) or "all"


def _short(value: Scalar) -> Scalar:
    """Return a number with four digits: those of a tuning have sixteen."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def split_settings(fields: Mapping[str, Scalar], varying: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return (parameters, tags): the axes and what varies in a task are parameters, what does not is a tag."""
    chosen = [*AXES, *(name for name in varying if name not in AXES)]
    params = {name: str(fields[name]) for name in chosen if fields.get(name) is not None}
    tags = {name: str(value) for name, value in fields.items() if name not in params and value is not None}
    return params, tags
