"""Rulings on claims as lines of text, with what would decide those that are open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poolbench.decide import Outlook


def seeds_text(outlook: Outlook) -> str:
    """Return what an open question takes, such as "3 more seeds of 2 groups, 40 s"."""
    groups, count = len(outlook.question.cells), outlook.further or 0
    seeds = f"{count} more seed{'s' if count != 1 else ''} of {groups} group{'s' if groups != 1 else ''}"
    return f"{seeds}, {time_text(outlook.cost)}" if outlook.seconds else seeds


def time_text(seconds: float) -> str:
    """Return a time such as "45 s", "12 min" or "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def rulings_text(found: Sequence[Outlook], before: Sequence[Outlook] = ()) -> list[str]:
    """Return a line per claim: its ruling, its effect and, where it is open, what would decide it.

    ``before`` are the outlooks of the same claims at an earlier time; a changed ruling names both.
    """
    from poolbench.analysis.text import effect_text

    earlier = {one.question.claim.name: one.verdict.ruling for one in before}
    lines = []
    for one in found:
        verdict, claim = one.verdict, one.question.claim
        was = earlier.get(claim.name, verdict.ruling)
        ruling = verdict.ruling if was == verdict.ruling else f"{was} -> {verdict.ruling}"
        metric = one.question.benchmark.metric(claim.metric)
        parts = [f"{metric.title} {effect_text(verdict.effect, metric, verdict.is_ratio)}" if verdict.effect else ""]
        parts.append(f"expected: {seeds_text(one)}" if one.is_open and before == () else "")
        lines.append(f"{ruling}: {claim.name}: {'; '.join(filter(None, parts)) or 'no pairs yet'}")
    return lines
