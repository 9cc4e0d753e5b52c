"""What a ledger holds for analysis: the results, and the values per image behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from poolbench.analysis.images import ImageValues
from poolbench.analysis.learning import judged
from poolbench.core import Result
from poolbench.runner.cell_record import CellRecord
from poolbench.runner.ledger import Ledger


@dataclass(frozen=True)
class Evidence:
    """All results of a ledger, judged by whether they have learned (see ``analysis.learning``), and their images.

    ``record(cell)`` returns the stored data of a cell by its id. ``left_out`` says what is not among the results.
    """

    results: Sequence[Result]
    images: ImageValues
    record: Callable[[str], CellRecord]
    left_out: Sequence[str] = ()


def read_evidence(ledger: Ledger) -> Evidence:
    """Read the results; tables with values per image are read when they are asked for."""
    images = ImageValues(lambda cell, name: ledger.record(cell).table(name))
    results, left_out = ledger.survey()
    return Evidence(judged(results), images, ledger.record, left_out)
