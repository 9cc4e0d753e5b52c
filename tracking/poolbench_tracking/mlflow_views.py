"""Saved views of an experiment: which runs, which columns, which charts.

MLflow's UI restores a view from an experiment tag. The format of its content is that of MLflow 3.17; a release that
does not know it shows the table of runs without the view.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from poolbench.core import Metric
from poolbench.task import Benchmark
from poolbench_tracking.mlflow_names import COST, CURVE, HALF_WIDTH, HIGH, LOW, metric_key

TAG = "mlflow.sharedViewState."
GROUPS, SEEDS, TRIALS = "poolbench-groups", "poolbench-seeds", "poolbench-trials"
NAME, CREATED = "attributes.`Run Name`", "attributes.start_time"
ACCURACY, TIME_KEY = "accuracy", f"{COST}/forward_ms"
ALL_RUNS = "SHOW_ALL"  # of which the charts draw ten otherwise
ANSWER = "Answer"
REST = ("Model metrics", "System metrics")
"""Sections of charts that the UI makes of metrics without a folder and of those of the machine."""


def view_link(address: str, experiment: str, view: str) -> str:
    """Return the link to a view in the mode for training, not the one for language models."""
    return f"{address}/#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={view}"


def views(benchmark: Benchmark, params: Sequence[str]) -> dict[str, str]:
    """Return {experiment tag: content} of the two views: the groups with their answer, and the seeds in their groups.

    ``params`` are the parameters that the runs have, those that vary first.
    """
    metrics = _first_metrics(benchmark)
    shown = [metric_key(metric.name, benchmark) for metric in metrics]
    settings = [_column("params", name) for name in params]
    # The headline, accuracy and the price fit into a window of 1400 px.
    first = dict.fromkeys([shown[0], ACCURACY])
    with_width = [name for key in first for name in (key, f"{HALF_WIDTH}/{key}")]
    others = [name for key in shown if key not in first for name in (key, f"{HALF_WIDTH}/{key}")]
    columns = [_column("metrics", name) for name in (*with_width, TIME_KEY, "n", *others)]
    charts = _charts(shown, benchmark)
    groups = {
        **_base([NAME, *columns, *settings]),
        "searchFilter": "tags.`poolbench.kind` = 'group'",
        "orderByKey": _column("metrics", shown[0]),
        "orderByAsc": not metrics[0].higher_is_better,
        **charts,
    }
    seeds = {
        **_base([NAME, *(_column("metrics", key) for key in shown), *settings]),
        "searchFilter": "",
        # Sorting by anything else takes the tree apart.
        "orderByKey": CREATED,
        "orderByAsc": False,
        **charts,
    }
    return {f"{TAG}{GROUPS}": _compact(groups), f"{TAG}{SEEDS}": _compact(seeds)}


def study_view(objectives: Sequence[str], params: Sequence[str], higher_is_better: bool) -> dict[str, str]:
    """Return {experiment tag: content} of the view of a tuning study: its trials, the best first objective on top."""
    columns = [
        *(_column("metrics", name) for name in (*objectives, "seconds")),
        *(_column("params", p) for p in params),
    ]
    state = {
        **_base([NAME, *columns]),
        "searchFilter": "tags.`poolbench.kind` = 'trial'",
        "orderByKey": _column("metrics", objectives[0]),
        "orderByAsc": not higher_is_better,
    }
    return {f"{TAG}{TRIALS}": _compact(state)}


def _first_metrics(benchmark: Benchmark) -> list[Metric]:
    """Return the metrics of the first choice, and accuracy."""
    names = dict.fromkeys([*(name for choice in benchmark.choices[:1] for name in choice.metrics), "accuracy"])
    return [benchmark.metric(name) for name in names]


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _base(columns: Sequence[str]) -> dict[str, Any]:
    return {
        "selectedColumns": [column for column in columns if column != NAME],
        "columnOrder": list(columns),
        "columnWidths": {NAME: 310} | {column: _width(column) for column in columns if column != NAME},
        "runsHiddenMode": ALL_RUNS,
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": False,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }


def _width(column: str) -> int:
    """Return the width of a column in px: that of its title, as far as the first columns then fit into 1400 px."""
    title = column.partition("`")[2].rstrip("`")
    return 100 if title.startswith(f"{HALF_WIDTH}/") else min(150, 26 + 7 * len(title))


def _folders(benchmark: Benchmark) -> dict[str, None]:
    """Return the folders of all metrics of a task's groups and seeds: the UI makes a section of charts of each."""
    keys = [f"{CURVE}/", f"{COST}/"]
    for metric in benchmark.metrics:
        key = metric_key(metric.name, benchmark)
        bounds = (LOW, HIGH) if metric.scale == "log" else (HALF_WIDTH,)
        keys += [key, *(f"{bound}/{key}" for bound in bounds)]
    return dict.fromkeys(sorted(folder for key in keys if (folder := key.rpartition("/")[0])))


def _charts(shown: Sequence[str], benchmark: Benchmark) -> dict[str, Any]:
    """Return the charts of the first metrics, and the maps with a slider for the seed.

    Those that the UI adds for all others are in folded sections.
    """
    folded = [*_folders(benchmark), *REST]
    sections = [_section(ANSWER, display=True), *(_section(name, display=False) for name in folded)]
    # Accuracy against the first other metric, or against time.
    others = [key for key in shown if key != ACCURACY]
    axes = _axes(ACCURACY, others[0]) if others else _axes(TIME_KEY, ACCURACY)
    bars = [_chart("BAR", f"bar-{key}", metricKey=key) for key in shown]
    charts = [bars[0], _chart("SCATTER", "scatter", **axes), *bars[1:]]
    charts.append(_chart("LINE", "curves", metricKey=f"{CURVE}/val_accuracy", xAxisKey="step", **LINE))
    charts += [
        _chart("IMAGE", f"image-{name}", imageKeys=[name], step=0, showRunParams=False) for name in benchmark.maps
    ]
    return {"compareRunSections": sections, "compareRunCharts": charts}


LINE: Mapping[str, Any] = {
    "lineSmoothness": 0, "scaleType": "linear", "xAxisScaleType": "linear", "range": {}, "yAxisKey": "metric",
    "yAxisExpressions": [], "ignoreOutliers": False, "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True,
    "selectedXAxisMetricKey": "",
}  # fmt: skip


def _axes(x: str, y: str) -> dict[str, Any]:
    return {"xaxis": {"key": x, "type": "METRIC"}, "yaxis": {"key": y, "type": "METRIC"}}


def _section(name: str, display: bool) -> dict[str, Any]:
    return {
        "uuid": f"section-{name}", "name": name, "display": display, "isReordered": False, "deleted": False,
        "isGenerated": name != ANSWER,
    }  # fmt: skip


def _chart(kind: str, name: str, **content: Any) -> dict[str, Any]:
    return {
        "type": kind, "uuid": name, "metricSectionId": f"section-{ANSWER}", "deleted": False, "isGenerated": False,
        "runsCountToCompare": 100, **content,
    }  # fmt: skip


def _compact(state: Mapping[str, Any]) -> str:
    return json.dumps(state, separators=(",", ":"))
