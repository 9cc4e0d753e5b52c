"""The regression gate: do tonight's results lie where the baseline's seeds say they should?

regressed      worse than the prediction interval allows, by more than the practical margin
inconclusive   not shown to be worse, but the interval is wider than the margin: a drop that
               matters could hide
fine           neither
no data        a metric of the baseline that tonight lacks, or too few seeds to judge
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

import pandas as pd

from poolbench.analysis.groups import fields_of, varying_fields
from poolbench.analysis.statistics import Interval, prediction_interval
from poolbench.core import Metric
from poolbench.registry import benchmarks

Outcome = Literal["regressed", "inconclusive", "fine", "no data"]
ALPHA = 0.01


@dataclass(frozen=True)
class Comparison:
    """One metric of one comparison group: tonight's mean against the baseline's prediction interval."""

    benchmark: str
    group: str
    label: str
    metric: str
    expected: Interval | None
    observed: float
    n: int
    margin: float
    outcome: Outcome
    reason: str


def compare(baseline: pd.DataFrame, current: pd.DataFrame, alpha: float = ALPHA) -> list[Comparison]:
    """Compare every group and directed metric of the baseline (results frames) with the current results.

    A metric regresses when its mean leaves the 1 - alpha t prediction interval of the baseline's
    seeds on the bad side and differs from the baseline's mean by more than the metric's tolerance.
    """
    found: list[Comparison] = []
    for name, own in baseline.groupby("benchmark"):
        metrics = benchmarks.get(str(name))().metrics if str(name) in benchmarks.names() else ()
        if not metrics:
            gone = f"there is no benchmark '{name}' any more"
            found.append(Comparison(str(name), "", "all", "all", None, math.nan, 0, 0.0, "no data", gone))
        directed = {m.name: m for m in metrics if m.higher_is_better is not None}
        labels = _labels(own)
        tonight = current[current["benchmark"] == name].groupby(["group", "metric"])["value"]
        values = {key: list(series) for key, series in tonight}
        for (group, metric), series in own.groupby(["group", "metric"])["value"]:
            if metric in directed:
                before, after = list(series), values.get((group, metric), [])
                expected, observed, outcome, reason = _judge(before, after, directed[str(metric)], alpha)
                found.append(
                    Comparison(
                        str(name),
                        str(group),
                        labels[str(group)],
                        str(metric),
                        expected,
                        observed,
                        len(after),
                        directed[str(metric)].tolerance,
                        outcome,
                        reason,
                    )
                )
    return found


def _judge(
    before: Sequence[float], after: Sequence[float], metric: Metric, alpha: float
) -> tuple[Interval | None, float, Outcome, str]:
    if not after:
        return None, math.nan, "no data", "the current results lack it"
    observed = sum(after) / len(after)
    if len(before) < 2:
        return None, observed, "no data", "the baseline has fewer than 2 seeds"
    if len(after) < len(before):
        return None, observed, "no data", f"the current results have {len(after)} of {len(before)} seeds"
    expected = prediction_interval(before, len(after), alpha)
    worse = expected.mean - observed if metric.higher_is_better else observed - expected.mean
    if worse > expected.half_width and worse > metric.tolerance:
        return expected, observed, "regressed", f"worse by {worse:.4g}, margin {metric.tolerance:g}"
    if expected.half_width > metric.tolerance:
        reason = f"seeds differ by +-{expected.half_width:.3g}, more than the margin {metric.tolerance:g}"
        return expected, observed, "inconclusive", reason
    return expected, observed, "fine", ""


def _labels(frame: pd.DataFrame) -> dict[str, str]:
    shown = varying_fields(frame)
    first = frame.drop_duplicates("group").set_index("group")[[*fields_of(frame)]]
    return {
        str(group): ", ".join(f"{name}={row[name]}" for name in shown if pd.notna(row[name]))
        for group, row in first.iterrows()
    }


def exit_code(comparisons: Sequence[Comparison]) -> int:
    """Return 1 where anything regressed, else 3 where data is missing or there is nothing to compare, else 0."""
    outcomes = {comparison.outcome for comparison in comparisons}
    if "regressed" in outcomes:
        return 1
    return 3 if "no data" in outcomes or not outcomes else 0


def to_junit(comparisons: Sequence[Comparison]) -> str:
    """Return JUnit XML: a suite per benchmark, a case per group and metric; regressions and absent data fail."""
    root = ElementTree.Element("testsuites", name="poolbench regress")
    for benchmark in dict.fromkeys(comparison.benchmark for comparison in comparisons):
        own = [comparison for comparison in comparisons if comparison.benchmark == benchmark]
        bad = {"regressed": "failures", "no data": "errors", "inconclusive": "skipped"}
        counts = {key: str(sum(c.outcome == outcome for c in own)) for outcome, key in bad.items()}
        suite = ElementTree.SubElement(root, "testsuite", name=benchmark, attrib={"tests": str(len(own)), **counts})
        for item in own:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"{benchmark}.{item.metric}", name=item.label or item.group
            )
            tag = {"regressed": "failure", "no data": "error", "inconclusive": "skipped"}.get(item.outcome)
            if tag:
                ElementTree.SubElement(case, tag, message=f"{item.outcome}: {item.reason}").text = _numbers(item)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def to_markdown(comparisons: Sequence[Comparison]) -> str:
    """Return a summary: counts, then a table of everything that is not fine, the worst first."""
    order: list[Outcome] = ["regressed", "no data", "inconclusive", "fine"]
    counts = [f"{sum(c.outcome == outcome for c in comparisons)} {outcome}" for outcome in order]
    lines = ["# Regression gate", "", f"{len(comparisons)} comparisons: {', '.join(counts)}.", ""]
    rows = [c for outcome in order[:-1] for c in comparisons if c.outcome == outcome]
    if rows:
        lines += ["| outcome | benchmark | cell group | metric | numbers | why |", "|---|---|---|---|---|---|"]
        lines += [
            f"| {c.outcome} | {c.benchmark} | {c.label} | {c.metric} | {_numbers(c)} | {c.reason} |" for c in rows
        ]
    return "\n".join(lines) + "\n"


def _numbers(item: Comparison) -> str:
    if item.expected is None:
        return "no interval"
    bounds = f"{item.expected.low:.4g} to {item.expected.high:.4g}"
    return f"{item.observed:.4g} (n = {item.n}), expected {bounds}"
