"""The first lines of the report: how many claims were tested, what became of them, and which did not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from poolbench.analysis.claims import AGAINST
from poolbench.analysis.reach import NOT_A_TEST
from poolbench.analysis.statistics import ALPHA
from poolbench_tracking.findings import Ruling
from poolbench_tracking.protocols import VERSION
from poolbench_tracking.sections import Section


@dataclass(frozen=True)
class Failure:
    """A claim that does not hold, with the section that says so."""

    section: Section
    ruling: Ruling


@dataclass(frozen=True)
class Overview:
    """``tested`` counts the rulings of which the networks are a test; ``rulings`` says in words what they are.

    ``few_seeds`` counts those that lack seeds, ``no_test`` those about other data, training or networks.
    """

    tested: int
    rulings: str
    few_seeds: int
    no_test: int
    failures: Sequence[Failure]
    expected_wrong: str
    """The number of wrong rulings that chance alone makes, at most."""


def overview(sections: Sequence[Section]) -> Overview:
    """Count the rulings of all sections, without those of older versions of a benchmark."""
    found = [
        Failure(section, ruling)
        for section in sections
        if not section.protocol.startswith(VERSION)
        for ruling in section.rulings
    ]
    tested = [one for one in found if one.ruling.is_a_test]
    counts = Counter(one.ruling.verdict.ruling for one in tested)
    no_test = sum(one.ruling.verdict.ruling == NOT_A_TEST for one in found)
    # A claim in several settings can be wrong by its mean and by a contradiction between them.
    chances = sum(1 if one.ruling.verdict.settings < 2 else 2 for one in tested)
    return Overview(
        len(tested),
        ", ".join(f"{ruling}: {count}" for ruling, count in counts.most_common()),
        len(found) - len(tested) - no_test,
        no_test,
        [one for one in tested if one.ruling.verdict.ruling in AGAINST],
        f"{ALPHA * chances:.2g}",
    )
