"""The verdicts of the regression gate as JUnit XML and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from poolbench.analysis.differences import Comparison
from poolbench.analysis.incidents import ORDER, SUSPICION, Incident, Verdict
from poolbench.analysis.power import Sight
from poolbench_tracking.report import markdown_text

TAGS: dict[Verdict, tuple[str, str]] = {
    "regressed": ("failure", "failures"),
    "no data": ("error", "errors"),
    "inconclusive": ("skipped", "skipped"),
}
"""JUnit's element of a verdict, and the attribute that counts them."""


def to_junit(incidents: Sequence[Incident]) -> str:
    """Return JUnit XML: a suite per benchmark, a case per group; regressions fail, missing data errs."""
    root = ElementTree.Element("testsuites", name="poolbench regress")
    for benchmark in dict.fromkeys(found.benchmark for found in incidents):
        cases = [found for found in incidents if found.benchmark == benchmark]
        counts = {key: str(sum(found.verdict == verdict for found in cases)) for verdict, (_, key) in TAGS.items()}
        suite = ElementTree.SubElement(root, "testsuite", name=benchmark, attrib={"tests": str(len(cases)), **counts})
        for found in cases:
            case = ElementTree.SubElement(suite, "testcase", classname=benchmark, name=found.label or found.group)
            if found.verdict in TAGS:
                message = f"{found.verdict}: {explain(found)}"
                ElementTree.SubElement(case, TAGS[found.verdict][0], message=message).text = _numbers(found)
    for element in root.iter():
        element.attrib.update({name: xml_text(value) for name, value in element.attrib.items()})
        element.text = element.text and xml_text(element.text)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def xml_text(text: str) -> str:
    """Return a text in which the characters that XML 1.0 does not have, such as control characters, are escapes."""
    return re.sub(
        "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]",
        lambda found: found[0].encode("unicode_escape").decode(),
        text,
    )


def to_markdown(incidents: Sequence[Incident]) -> str:
    """Return the number of groups per verdict, a line on bits, and a table of the groups, the worst first."""
    counts = [f"{number} {verdict}" for verdict in ORDER if (number := sum(i.verdict == verdict for i in incidents))]
    lines = ["# Regression gate", "", f"{len(incidents)} groups: {', '.join(counts) or 'none'}.", bits_line(incidents)]
    for reveal in (True, False):
        rows = [
            f"| {i.verdict} | {markdown_text(i.benchmark)} | {markdown_text(i.label)} | {markdown_text(explain(i))} |"
            for verdict in ORDER
            for i in incidents
            if i.verdict == verdict and (verdict in ("regressed", "no data", "improved")) == reveal
        ]
        if rows:
            table = ["| verdict | benchmark | group | what was found |", "|---|---|---|---|", *rows]
            fold = ["<details><summary>The other groups</summary>", ""], ["", "</details>"]
            lines += ["", *([] if reveal else fold[0]), *table, *([] if reveal else fold[1])]
    return "\n".join(lines) + "\n"


def bits_line(incidents: Sequence[Incident]) -> str:
    """Return one sentence on how many groups have the bits of the baseline."""
    same, changed = (sum(found.bits == bits for found in incidents) for bits in ("same", "changed"))
    if not same + changed:
        return "No group ran in the baseline's environment, so bits say nothing."
    others = len(incidents) - same - changed
    ran = f"; {others} ran in another environment" if others else ""
    return f"{changed} of {same + changed} groups changed bits in the baseline's environment{ran}."


def explain(found: Incident) -> str:
    """Return why a group has its verdict, in one line."""
    again = found.confirmation
    if found.verdict == "identical":
        return "same bits"
    if found.verdict == "no data":
        if again and again.missing:
            return f"confirmation: {again.missing}"
        return found.missing or "it ran in another environment, so its bits cannot be compared"
    parts = [_change(c) for c in _telling(found)]
    if found.verdict == "regressed" and not parts and found.bits == "changed" and not _fewer(found):
        return "bits changed"
    if found.verdict == "fine":
        parts += [f"{c.metric.title} {c.before:.4g} → {c.after:.4g}" for c in found.latest]
    learned = (again or found).learned or found.learned
    if learned and (learned.is_lower or not parts):
        parts.append(str(learned))
    if again:
        state = "confirmed" if found.verdict == "regressed" else "suspicious, not confirmed"
        parts.append(f"{state} on {found.reserve} reserve seeds")
    if found.missing:
        parts.append(found.missing)
    if found.reference != "baseline":
        parts.append(f"compared with {found.reference}")
    return "; ".join(parts)


def _fewer(found: Incident) -> bool:
    return found.learned is not None and found.learned.is_lower


def _telling(found: Incident) -> list[Comparison]:
    """Return the comparisons that made the verdict: those that moved, or those in which a drop could hide."""
    if found.verdict == "regressed":
        return (found.confirmation or found).fallen
    if found.verdict == "improved":
        return found.risen
    if found.verdict == "inconclusive":
        return [c for c in found.latest if c.high >= c.metric.tolerance]
    return []


def _change(c: Comparison) -> str:
    span = f"{c.metric.title} {c.before:.4g} → {c.after:.4g}"
    if min(c.p_worse, c.p_better) <= SUSPICION:
        size = f"drop {c.low:.2g} to {c.high:.2g}" if c.p_worse < c.p_better else f"gain {-c.high:.2g} to {-c.low:.2g}"
        return f"{span} ({size}, p = {min(c.p_worse, c.p_better):.1g}, n = {c.n})"
    return f"{span}, a drop of up to {c.high:.2g} could hide (tolerance {c.metric.tolerance:g}, n = {c.n})"


def _numbers(found: Incident) -> str:
    """Return a line per metric, gated ones first."""
    shown = sorted(found.comparisons, key=lambda c: not c.metric.gated)
    return "\n".join(
        f"{c.metric.name}: {c.before:.6g} → {c.after:.6g}, drop {c.low:.3g} to {c.high:.3g}, p = {c.p_worse:.2g}"
        f"{'' if c.metric.gated else ' (not gated)'}"
        for c in shown
    )


def power_to_markdown(sights: Sequence[Sight]) -> str:
    """Return a table of the smallest drop that is seen in each gated metric, those that miss their tolerance first."""
    seen = sum(sight.sees_tolerance for sight in sights)
    lines = [
        f"{seen} of {len(sights)} gated metrics see a drop of their own tolerance with power .9.",
        "",
        "| benchmark | group | metric | level | deviation | seeds | reserve | smallest drop | tolerance | "
        "seeds for half the drop |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for s in sorted(sights, key=lambda s: -s.drop / s.metric.tolerance):
        names = " | ".join(map(markdown_text, (s.benchmark, s.label, s.metric.name)))
        lines.append(
            f"| {names} | {s.level:.3g} | {s.deviation:.2g} | {s.seeds} | {s.reserve} | "
            f"{s.drop:.2g}{'' if s.sees_tolerance else ' (!)'} | {s.metric.tolerance:g} | {s.halved or 'over 1000'} |"
        )
    return "\n".join(lines) + "\n"
