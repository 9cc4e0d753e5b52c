"""Which networks have learned: judged from the accuracies of all results of a benchmark, not from one alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite

import pandas as pd

from poolbench.core import Result

Table = tuple[str, str, str]
"""Benchmark, data set and variant: what the results of one table share."""
LEAST = 0.1
"""Of the way from chance to 1. If the best network of a table comes less far, none of the table has learned."""


def judged(results: Sequence[Result], reference: Mapping[Table, float] | None = None) -> list[Result]:
    """Return the results with facts["learned"] for those that are finished.

    A network has learned if its decision varies over the images and its accuracy is at least half of the way from
    chance to the best of its table, or to ``reference`` where that gives an accuracy: the baseline's best for the
    gate (see :func:`best_accuracies`). Facts used: "chance" (0 if absent) and "commonest", the share of the commonest
    decision (below 1 if absent, as in results of older versions).
    """
    best = dict(reference or {})
    known = set(best)
    for result in results:
        table, accuracy = _table(result), _accuracy(result)
        if table not in known and isfinite(accuracy):
            best[table] = max(best.get(table, accuracy), accuracy)
    return [
        replace(result, facts={**result.facts, "learned": _has_learned(result, best.get(_table(result), 0.0))})
        if result.status == "finished"
        else result
        for result in results
    ]


def best_accuracies(frame: pd.DataFrame) -> dict[Table, float]:
    """Return the best accuracy of every table of a results frame, as ``reference`` of :func:`judged`."""
    rows = frame[frame["metric"] == "accuracy"]
    best = rows.groupby(["benchmark", "dataset", "variant"], as_index=False)["value"].max()
    return {(row["benchmark"], row["dataset"], row["variant"]): float(row["value"]) for _, row in best.iterrows()}


def _table(result: Result) -> Table:
    return result.cell.benchmark, result.cell.dataset.name, result.cell.variant


def _accuracy(result: Result) -> float:
    return result.metrics.get("accuracy", float("nan")) if result.status == "finished" else float("nan")


def _has_learned(result: Result, best: float) -> bool:
    chance = float(result.facts.get("chance", 0.0))
    varies = float(result.facts.get("commonest", 0.0)) < 1
    way = best - chance
    # A NaN accuracy is no evidence of learning: the comparison is then false.
    return varies and way >= LEAST * (1 - chance) and _accuracy(result) >= chance + way / 2
