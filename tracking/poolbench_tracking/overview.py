"""The first lines of the report: how many claims were tested, what became of them, and which did not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from poolbench.analysis.claims import AGAINST
from poolbench.analysis.statistics import ALPHA
from poolbench_tracking.sections import Ruling, Section


@dataclass(frozen=True)
class Failure:
    """A claim that does not hold, with the section that says so."""

    section: Section
    ruling: Ruling


@dataclass(frozen=True)
class Overview:
    """``tested`` counts the claims of which the networks are a test; ``rulings`` says in words what became of them."""

    tested: int
    rulings: str
    not_tested: int
    failures: Sequence[Failure]

    @property
    def expected_wrong(self) -> str:
        """The number of wrong rulings that chance alone makes, at most."""
        return f"{ALPHA * self.tested:.2g}"


def overview(sections: Sequence[Section]) -> Overview:
    """Count the rulings of all sections."""
    found = [Failure(section, ruling) for section in sections for ruling in section.rulings]
    tested = [one for one in found if one.ruling.is_a_test]
    counts = Counter(one.ruling.verdict.ruling for one in tested)
    failures = [one for one in tested if one.ruling.verdict.ruling in AGAINST]
    return Overview(
        len(tested),
        ", ".join(f"{ruling}: {count}" for ruling, count in counts.most_common()),
        len(found) - len(tested),
        failures,
    )
