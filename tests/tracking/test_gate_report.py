"""The gate's outcome as JUnit XML and Markdown."""

from __future__ import annotations

from math import nan
from xml.etree import ElementTree

from poolbench.analysis.gate import Comparison, Outcome
from poolbench.analysis.statistics import Interval
from poolbench_tracking.gate_report import to_junit, to_markdown


def comparison(head: str, outcome: Outcome, reason: str = "") -> Comparison:
    expected = None if outcome == "no data" else Interval(0.8, 0.75, 0.85, 5)
    observed, n = (nan, 0) if outcome == "no data" else (0.7, 5)
    return Comparison(
        "study", f"group {head}", f"head={head}", "accuracy", expected, observed, n, 0.01, outcome, reason
    )


FOUND = [
    comparison("sum", "inconclusive", "too wide"),
    comparison("max", "fine"),
    comparison("avg", "regressed", "worse by 0.1"),
    comparison("lse", "no data", "gone"),
]


def test_junit_counts_what_happened() -> None:
    suite = ElementTree.fromstring(to_junit(FOUND)).find("testsuite")
    assert suite is not None
    counts = {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "4", "failures": "1", "errors": "1", "skipped": "1"}
    cases = {case.get("name"): [child.tag for child in case] for case in suite}
    assert cases == {"head=avg": ["failure"], "head=max": [], "head=lse": ["error"], "head=sum": ["skipped"]}
    failure = suite.find(".//failure")
    assert failure is not None
    assert failure.get("message") == "regressed: worse by 0.1"
    assert failure.text == "0.7 (n = 5), expected 0.75 to 0.85"


def test_markdown_names_the_culprit_first() -> None:
    text = to_markdown(FOUND)
    assert "4 comparisons: 1 regressed, 1 no data, 1 inconclusive, 1 fine." in text
    assert "head=max" not in text
    assert [line.split(" | ")[:3] for line in text.splitlines()[6:]] == [
        ["| regressed", "study", "head=avg"],
        ["| no data", "study", "head=lse"],
        ["| inconclusive", "study", "head=sum"],
    ]
    assert "| accuracy | no interval | gone |" in text


def test_markdown_of_nothing_but_fine_comparisons_has_no_table() -> None:
    assert (
        to_markdown(FOUND[1:2])
        == "# Regression gate\n\n1 comparisons: 0 regressed, 0 no data, 0 inconclusive, 1 fine.\n\n"
    )
