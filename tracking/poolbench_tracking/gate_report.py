"""The outcome of the regression gate as JUnit XML and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from poolbench.analysis.gate import Comparison, Outcome


def to_junit(comparisons: Sequence[Comparison]) -> str:
    """Return JUnit XML: a suite per benchmark, a case per group and metric; regressions fail, missing data errs."""
    root = ElementTree.Element("testsuites", name="poolbench regress")
    for benchmark in dict.fromkeys(comparison.benchmark for comparison in comparisons):
        cases = [comparison for comparison in comparisons if comparison.benchmark == benchmark]
        counted = {"regressed": "failures", "no data": "errors", "inconclusive": "skipped"}
        counts = {key: str(sum(c.outcome == outcome for c in cases)) for outcome, key in counted.items()}
        suite = ElementTree.SubElement(root, "testsuite", name=benchmark, attrib={"tests": str(len(cases)), **counts})
        for item in cases:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"{benchmark}.{item.metric}", name=item.label or item.group
            )
            tag = {"regressed": "failure", "no data": "error", "inconclusive": "skipped"}.get(item.outcome)
            if tag:
                ElementTree.SubElement(case, tag, message=f"{item.outcome}: {item.reason}").text = _numbers(item)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def to_markdown(comparisons: Sequence[Comparison]) -> str:
    """Return the number of comparisons per outcome, then a table of those that are not fine, worst first."""
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
