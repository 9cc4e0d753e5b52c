"""The gate's verdicts as JUnit XML and Markdown."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from poolbench.analysis.differences import Comparison
from poolbench.analysis.incidents import Incident, Learned, Verdict
from poolbench.analysis.power import Sight
from poolbench.core import Metric
from poolbench_tracking.gate_report import bits_line, explain, power_to_markdown, to_junit, to_markdown

ACCURACY = Metric("accuracy", "accuracy", True, 0.02, gated=True)
LOSS = Metric("loss", "loss", False, 0.02)
FELL = Comparison(ACCURACY, 0.9, 0.8, 0.07, 0.13, 1e-5, 1 - 1e-5, 5, True)
ROSE = Comparison(ACCURACY, 0.8, 0.9, -0.13, -0.07, 1 - 1e-5, 1e-5, 5, True)
WIDE = Comparison(ACCURACY, 0.9, 0.9, -0.034, 0.034, 0.5, 0.5, 5, True)
NARROW = Comparison(ACCURACY, 0.9, 0.9, -0.01, 0.01, 0.5, 0.5, 5, True)
LOST = Comparison(LOSS, 0.4, 0.9, 0.4, 0.6, 1e-6, 1.0, 5, True)


def incident(head: str, verdict: Verdict, *comparisons: Comparison, missing: str = "") -> Incident:
    return Incident(
        "study", f"group {head}", f"head={head}", missing=missing, comparisons=comparisons,
        learned=Learned(5, 5, 5, 5), verdict=verdict,
    )  # fmt: skip


FOUND = [
    incident("sum", "inconclusive", WIDE),
    incident("max", "fine", NARROW, LOST),
    incident("avg", "regressed", FELL, LOST),
    incident("gem", "improved", ROSE),
    incident("lse", "no data", missing="the group is absent"),
    replace(incident("top", "identical"), bits="same"),
]


def test_junit_counts_what_happened() -> None:
    suite = ElementTree.fromstring(to_junit(FOUND)).find("testsuite")
    assert suite is not None
    counts = {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "6", "failures": "1", "errors": "1", "skipped": "1"}
    cases = {case.get("name"): [child.tag for child in case] for case in suite}
    assert cases == {
        "head=avg": ["failure"], "head=max": [], "head=lse": ["error"], "head=sum": ["skipped"], "head=gem": [],
        "head=top": [],
    }  # fmt: skip
    failure = suite.find(".//failure")
    assert failure is not None
    assert failure.get("message") == "regressed: accuracy 0.9 → 0.8 (drop 0.07 to 0.13, p = 1e-05, n = 5)"
    assert failure.text is not None
    assert failure.text.splitlines() == [
        "accuracy: 0.9 → 0.8, drop 0.07 to 0.13, p = 1e-05",
        "loss: 0.4 → 0.9, drop 0.4 to 0.6, p = 1e-06 (not gated)",
    ]


def test_markdown_names_the_culprit_first_and_folds_the_rest() -> None:
    text = to_markdown(FOUND)
    assert "6 groups: 1 regressed, 1 no data, 1 improved, 1 inconclusive, 1 fine, 1 identical." in text
    shown, _, folded = text.partition("<details>")
    assert [line.split(" | ")[0] for line in shown.splitlines() if "head=" in line] == [
        "| regressed", "| no data", "| improved",
    ]  # fmt: skip
    assert [line.split(" | ")[0] for line in folded.splitlines() if "head=" in line] == [
        "| inconclusive", "| fine", "| identical",
    ]  # fmt: skip
    assert "<details>" not in to_markdown(FOUND[2:3])


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (FOUND[0], "accuracy 0.9 → 0.9, a drop of up to 0.034 could hide (tolerance 0.02, n = 5)"),
        (FOUND[1], "accuracy 0.9 → 0.9"),
        (FOUND[3], "accuracy 0.8 → 0.9 (gain 0.07 to 0.13, p = 1e-05, n = 5)"),
        (FOUND[4], "the group is absent"),
        (FOUND[5], "same bits"),
        (
            replace(FOUND[1], learned=Learned(5, 5, 4, 5)),
            "accuracy 0.9 → 0.9; 4 of 5 networks learned, in the baseline 5 of 5",
        ),
        (
            replace(FOUND[1], reserve=8, confirmation=incident("max", "inconclusive", NARROW)),
            "accuracy 0.9 → 0.9; suspicious, not confirmed on 8 reserve seeds",
        ),
        (
            replace(FOUND[2], reserve=8, confirmation=FOUND[2], reference="the last good nights"),
            "accuracy 0.9 → 0.8 (drop 0.07 to 0.13, p = 1e-05, n = 5); confirmed on 8 reserve seeds; "
            "compared with the last good nights",
        ),
    ],
)
def test_what_was_found_is_one_line(found: Incident, line: str) -> None:
    assert explain(found) == line


def test_one_sentence_on_bits() -> None:
    assert bits_line(FOUND[:5]) == "No group ran in the baseline's environment, so bits say nothing."
    changed = [replace(found, bits="changed") for found in FOUND[:2]]
    assert bits_line([*changed, FOUND[5]]) == "2 of 3 groups changed bits in the baseline's environment."
    assert bits_line(FOUND) == (
        "0 of 1 groups changed bits in the baseline's environment; 5 ran in another environment."
    )


def test_the_power_table_names_the_blind_metrics_first() -> None:
    sharp = Sight("study", "g", "head=avg", ACCURACY, 0.9, 0.01, 6, 8, 0.015, 24)
    blind = replace(sharp, label="head=max", drop=0.05, halved=None)
    lines = power_to_markdown([sharp, blind]).splitlines()
    assert lines[0] == "1 of 2 gated metrics see a drop of their own tolerance with power .9."
    assert lines[4] == "| study | head=max | accuracy | 0.9 | 0.01 | 6 | 8 | 0.05 (!) | 0.02 | over 1000 |"
    assert lines[5] == "| study | head=avg | accuracy | 0.9 | 0.01 | 6 | 8 | 0.015 | 0.02 | 24 |"
