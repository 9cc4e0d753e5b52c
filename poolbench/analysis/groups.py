"""The ledger's finished cells as one table: a row per cell and metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from poolbench.analysis.statistics import t_interval
from poolbench.core import Cell, Metric, Result, Scalar, UsageError
from poolbench.task import Benchmark, Grid

AXES = ("dataset", "architecture", "variant", "pool", "head")
COLUMNS = ("benchmark", *AXES, "seed", "group", "cell", "learned", "metric", "value")


def cell_fields(cell: Cell) -> dict[str, Scalar]:
    """Return the fields by which cells are told apart: the axes, then every option by its name."""
    axes = {axis: getattr(cell, axis) for axis in AXES}
    return {**axes, **cell.model, **asdict(cell.train), **cell.data, **cell.measure}


def term(name: str, value: Scalar | None) -> str:
    """Return a field's value for people: a word speaks for itself, a number needs its name."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{name}={value}"


def metric_label(metric: Metric) -> str:
    """Return title, unit and direction, such as "interior range / logit ↓"."""
    arrow = {True: "\u00a0↑", False: "\u00a0↓", None: ""}[metric.higher_is_better]
    return metric.title + (f" / {metric.unit}" if metric.unit else "") + arrow


@dataclass(frozen=True)
class Group:
    """The finished cells that differ in nothing but their seed, in order of seed."""

    id: str
    fields: Mapping[str, Scalar]
    results: Sequence[Result]

    @property
    def unlearned(self) -> int:
        """Number of networks that have not learned."""
        return sum(not result.facts["learned"] for result in self.results)

    def values(self, metric: str) -> dict[int, float]:
        """Return {seed: value} of the finite values of a metric."""
        found = {result.cell.seed: result.metrics.get(metric, math.nan) for result in self.results}
        return {seed: value for seed, value in found.items() if math.isfinite(value)}


def groups_of(results: Sequence[Result]) -> list[Group]:
    """Return the groups of the finished results, in order of appearance."""
    members: dict[str, list[Result]] = {}
    for result in results:
        if result.status == "finished":
            members.setdefault(result.cell.group, []).append(result)
    return [
        Group(name, cell_fields(found[0].cell), sorted(found, key=lambda result: result.cell.seed))
        for name, found in members.items()
    ]


def decimals(metric: Metric) -> int:
    """Return how many decimals a metric deserves: one more than the difference that anybody would act on."""
    return max(0, 1 - math.floor(math.log10(metric.tolerance))) if metric.tolerance > 0 else 3


def number_text(group: Group, metric: Metric, separator: str = " ") -> str:
    """Return "mean ± half width of the 95 % t interval" over seeds, the mean of a single seed, "-" without any."""
    values = list(group.values(metric.name).values())
    if not values:
        return "-"
    interval = t_interval(values)
    mean = rounded(interval.mean, metric)
    return mean if interval.n < 2 else f"{mean}{separator}± {rounded(interval.half_width, metric)}"


def rounded(value: float, metric: Metric, sign: str = "") -> str:
    """Return the value with the metric's decimals; ``sign`` "+" writes it before positive ones."""
    places = decimals(metric)
    # Adding 0 turns a rounded -0.0 into 0.0.
    return f"{round(value, places) + 0.0:{sign}.{places}f}"


OTHER_SETTINGS = "other settings"


def protocol_of(cell: Cell, benchmark: Benchmark) -> str:
    """Return the preset whose settings the cell has, such as "quick": cells of two protocols never compare.

    "version 1" where the benchmark has since changed its meaning, "judged on validation images" while
    tuning, "other settings" where no preset fits. Data set, architecture, pool, head and seed do not
    count: they are what selectors choose.
    """
    if cell.split != "test":
        return f"judged on {cell.split} images"
    if cell.version != benchmark.version:
        return f"version {cell.version}"
    fitting = (name for name, grids in benchmark.presets.items() if any(_fits(cell, grid) for grid in grids))
    return next(fitting, OTHER_SETTINGS)


def _fits(cell: Cell, grid: Grid) -> bool:
    own = (cell.variant, cell.train, dict(cell.model), dict(cell.data), dict(cell.measure))
    return own == (grid.variant, grid.train, dict(grid.model), dict(grid.data), dict(grid.measure))


def results_frame(results: Sequence[Result]) -> pd.DataFrame:
    """Return one row per finished cell and finite metric: fields, seed, group, cell, learned, metric, value."""
    rows = [
        {
            "benchmark": result.cell.benchmark,
            **cell_fields(result.cell),
            "seed": result.cell.seed,
            "group": result.cell.group,
            "cell": result.cell.id,
            "learned": bool(result.facts["learned"]),
            "metric": metric,
            "value": value,
        }
        for result in results
        if result.status == "finished"
        for metric, value in result.metrics.items()
        if math.isfinite(value)
    ]
    if not rows:
        return pd.DataFrame(columns=list(COLUMNS)).astype({"learned": bool, "value": float})
    frame = pd.DataFrame(rows)
    options = [name for name in frame.columns if name not in COLUMNS]
    # An option that only some benchmarks have must stay an integer or a boolean beside the gaps.
    frame[options] = frame[options].convert_dtypes()
    return frame


def read_results(path: str) -> pd.DataFrame:
    """Return a table written as CSV by the report; raise UsageError where it is not one."""
    try:
        frame = pd.read_csv(path, dtype={"group": str, "cell": str})
    except (OSError, ValueError) as error:
        raise UsageError(
            f"cannot read results from '{path}': {error}; give a folder that 'poolbench report' wrote"
        ) from error
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise UsageError(f"'{path}' is no table of results: it lacks the columns {', '.join(missing)}")
    return frame


def fields_of(frame: pd.DataFrame) -> list[str]:
    """Return the columns that tell cells apart: the axes, then the options as they appear."""
    return [*AXES, *(name for name in frame.columns if name not in COLUMNS)]


def varying_fields(frame: pd.DataFrame) -> list[str]:
    """Return the fields that take more than one value, "pool" at least; a field that another implies is left out."""
    chosen: list[str] = []
    for name in fields_of(frame):
        if frame[name].nunique(dropna=False) < 2:
            continue
        before = frame.groupby(chosen, dropna=False).ngroups if chosen else 1
        if frame.groupby([*chosen, name], dropna=False).ngroups > before:
            chosen.append(name)
    return chosen or ["pool"]
