"""Results as data frames: one row per finished cell and metric, or per group and metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from poolbench.analysis.effects import group_interval
from poolbench.analysis.groups import AXES, cell_fields, groups_of, has_learned
from poolbench.analysis.identity import fingerprint
from poolbench.analysis.images import NO_IMAGES, ImageValues
from poolbench.core import Metric, Result, UsageError

COLUMNS = ("benchmark", *AXES, "seed", "group", "cell", "fingerprint", "learned", "metric", "value", "images")
ACCEPTED = "accepted"
"""The column of a baseline that says when its results were finished (UTC, ISO format); it is no field of the cells."""

LATER_COLUMNS: Mapping[str, bool | str | int] = {"learned": True, "fingerprint": "", "images": 0}
"""Columns that the tables of older versions lack, with what is assumed."""
REQUIRED = ("benchmark", "group", "seed", "learned", "metric", "images")
HOW_TO_MAKE = "give a results.csv that 'poolbench report' or 'poolbench baseline accept' wrote"


def results_frame(results: Sequence[Result]) -> pd.DataFrame:
    """Return one row per finished cell and finite metric: its fields and ``COLUMNS``.

    ``fingerprint`` is that of :mod:`identity`, ``images`` the number of images behind the value (0: unknown).
    A metric that is undefined (NaN) for a cell has no row. Every cell has at least its accuracy, so an undefined
    metric differs from an absent cell.
    """
    found = [
        result for result in results if result.status == "finished" and any(map(math.isfinite, result.metrics.values()))
    ]
    if not found:
        return pd.DataFrame(columns=list(COLUMNS)).astype({"learned": bool, "value": float})
    # One row per cell first: with some fifty rows of each, rows as dictionaries take gigabytes for thousands of cells.
    cells = pd.DataFrame([_common_columns(result) for result in found])
    options = [name for name in cells.columns if name not in COLUMNS]
    # Keeps integers and booleans as such in columns where some benchmarks have no value.
    cells[options] = cells[options].convert_dtypes()
    measured = [
        (row, metric, value, result.facts.get("images", {}).get(metric, 0))
        for row, result in enumerate(found)
        for metric, value in result.metrics.items()
        if math.isfinite(value)
    ]
    values = pd.DataFrame(measured, columns=["row", "metric", "value", "images"])
    return cells.join(values.set_index("row")).reset_index(drop=True)


def _common_columns(result: Result) -> dict[str, Any]:
    """Return the columns that all rows of a cell share."""
    cell = result.cell
    return {
        "benchmark": cell.benchmark,
        **cell_fields(cell),
        "seed": cell.seed,
        "group": cell.group,
        "cell": cell.id,
        "fingerprint": fingerprint(result),
        "learned": has_learned(result),
    }


def read_results(path: str) -> pd.DataFrame:
    """Return the results frame stored in a CSV file, with values equal to the last bit.

    Files of older versions lack some columns: all their networks have learned, their environments and numbers of
    images are unknown. Raises UsageError if the file cannot be read, lacks another column, or has a field that is no
    value of its column.
    """
    try:
        # Values as text: the CSV parser of pandas 2 does not always return the nearest float.
        frame = pd.read_csv(path, dtype={"group": str, "cell": str, "value": str})
        missing = [name for name in COLUMNS if name not in frame.columns and name not in LATER_COLUMNS]
        if missing:
            raise ValueError(f"it lacks the columns {', '.join(missing)}")
        for name, value in LATER_COLUMNS.items():
            if name not in frame.columns:
                frame[name] = value
        blank = [name for name in REQUIRED if frame[name].isna().any()]
        if blank:
            raise ValueError(f"a field is empty in the columns {', '.join(blank)}")
        if not frame["learned"].isin([True, False]).all():
            raise ValueError("the column learned is True or False")
        frame = frame.astype({"seed": "int64", "images": "int64", "learned": bool})
        frame["value"] = frame["value"].map(float)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"cannot read results from '{path}': {reason}; {HOW_TO_MAKE}") from error
    options = [name for name in frame.columns if name not in COLUMNS]
    # Integers in columns where some benchmarks have no value.
    frame[options] = frame[options].convert_dtypes()
    return frame


def fields_of(frame: pd.DataFrame) -> list[str]:
    """Return the columns of a results frame that hold fields: the axes, then the options in column order."""
    return [*AXES, *(name for name in frame.columns if name not in (*COLUMNS, ACCEPTED))]


def varying_fields(frame: pd.DataFrame, given: Sequence[str] = ()) -> list[str]:
    """Return the fields with more than one value, without those that the fields before them determine.

    ``given`` fields count as before all others and are left out. Returns ["pool"] if nothing varies and none is given.
    """
    chosen = list(given)
    for name in fields_of(frame):
        if name in chosen or frame[name].nunique(dropna=False) < 2:
            continue
        before = frame.groupby(chosen, dropna=False).ngroups if chosen else 1
        if frame.groupby([*chosen, name], dropna=False).ngroups > before:
            chosen.append(name)
    return chosen[len(given) :] if given else chosen or ["pool"]


def summary_rows(
    results: Sequence[Result], metrics: Sequence[Metric], images: ImageValues = NO_IMAGES
) -> list[dict[str, Any]]:
    """Return one row per group and metric: fields, group, metric, mean, low, high, n, learned.

    ``low`` and ``high`` bound the 95 % interval of the mean (logarithmic metrics: the geometric mean) over the ``n``
    networks that have learned, and are absent for too few; ``learned`` is their share. Without any network, n is 0 and
    the mean is absent, too.
    """
    rows: list[dict[str, Any]] = []
    for group in groups_of(results):
        for metric in metrics:
            interval = group_interval(group, metric, images)
            if interval is None and not group.unlearned_values(metric.name):
                continue
            bounded = interval if interval and interval.is_bounded else None
            rows.append(
                {
                    **group.fields,
                    "group": group.id,
                    "metric": metric.name,
                    "mean": interval and interval.mean,
                    "low": bounded and bounded.low,
                    "high": bounded and bounded.high,
                    "n": interval.n if interval else 0,
                    "learned": 1 - group.unlearned / len(group.results),
                }
            )
    return rows
