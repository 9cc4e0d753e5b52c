"""Where the next seeds go: to the claims that they are expected to decide at the lowest cost.

The intervals of claims hold whenever one looks (see ``analysis.statistics``), so seeds may be added one batch after
another, today or next week, and a claim may be left alone as soon as it is decided.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil
from statistics import fmean

import pandas as pd

from poolbench.analysis.claims import Verdict, comparison_of, judge
from poolbench.analysis.frames import results_frame
from poolbench.analysis.images import ImageValues
from poolbench.analysis.reach import NOT_A_TEST
from poolbench.analysis.statistics import LEAST_SEEDS
from poolbench.claim import Claim
from poolbench.core import FIRST_RESERVE_SEED, Cell, Result, UsageError
from poolbench.registry import benchmarks, closest
from poolbench.runner.evidence import read_evidence
from poolbench.runner.ledger import Ledger
from poolbench.task import Benchmark

LARGEST_BATCH = 8
"""Seeds per group in one batch. The expectation is renewed after each."""


@dataclass(frozen=True)
class Question:
    """A claim with the groups that it compares, a cell of each (with any seed).

    ``out_of_reach``: by their data and training, these networks are no test of the claim.
    """

    benchmark: Benchmark
    preset: str
    claim: Claim
    cells: Sequence[Cell]
    out_of_reach: bool = False

    def with_seed(self, seed: int) -> list[Cell]:
        """Return a cell of each group with this seed."""
        return [replace(cell, seed=seed) for cell in self.cells]


@dataclass(frozen=True)
class Outlook:
    """What the results say about a question, and what it would take to decide it.

    ``seeds`` counts the seeds with which all its groups ran, failed cells included. ``further`` is the number of seeds
    expected to decide it: 0 if it is decided, None if no number in sight would, or if the networks are no test of the
    claim. ``seconds`` is the time of one more seed of all groups, None while unknown.
    """

    question: Question
    verdict: Verdict
    seeds: int
    further: int | None
    seconds: float | None

    @property
    def is_open(self) -> bool:
        """Whether more seeds are expected to decide it."""
        return bool(self.further)

    @property
    def cost(self) -> float:
        """The time until it is expected to be decided, in seconds; 0 while unknown."""
        return (self.further or 0) * (self.seconds or 0.0)


def questions(cells: Sequence[Cell], preset: str, wanted: Sequence[str] = ()) -> list[Question]:
    """Return the claims that the cells of a preset can judge, ``wanted`` ones only (all if empty).

    Raises UsageError for a claim that no benchmark of the cells has, or that these cells cannot judge.
    """
    by_group = {cell.group: cell for cell in cells}
    found: list[Question] = []
    known: list[str] = []
    for name in dict.fromkeys(cell.benchmark for cell in by_group.values()):
        benchmark = benchmarks.get(name)()
        # Only the fields of the cells matter, so each has a result with the metrics that claims are about.
        metrics = {claim.metric: 0.0 for claim in benchmark.claims}
        own = [cell for cell in by_group.values() if cell.benchmark == name]
        imagined = results_frame([Result(cell, "finished", metrics=metrics) for cell in own])
        for claim in benchmark.claims:
            known.append(claim.name)
            if wanted and claim.name not in wanted:
                continue
            if comparison := comparison_of(claim, name, imagined, preset):
                compared = [cell for group, cell in by_group.items() if group in comparison.groups]
                found.append(Question(benchmark, preset, claim, compared, bool(comparison.out_of_reach)))
    for asked in wanted:
        if asked not in known:
            raise closest("claim", asked, known)
        if asked not in [question.claim.name for question in found]:
            raise UsageError(f"the selected cells cannot judge the claim '{asked}': one of its sides is not among them")
    return found


def outlooks(ledger: Ledger, asked: Sequence[Question], workers: int = 1) -> list[Outlook]:
    """Return the outlook of every question from the results of a ledger; ``workers`` cells run at a time."""
    evidence = read_evidence(ledger)
    results, frame = evidence.results, results_frame(evidence.results)
    # Frames are wide: most metrics are in no claim.
    wanted = {name for question in asked for name in (question.claim.metric, question.claim.minus, "accuracy")}
    frame = frame[frame["metric"].isin(wanted)]
    seconds = _seconds(results)
    tried, finished = _seeds(results, _is_tried), _seeds(results, lambda result: result.status == "finished")
    return [
        _outlook(
            question, frame, evidence.images, _common(question, tried), _common(question, finished), seconds, workers
        )
        for question in asked
    ]


def _outlook(
    question: Question,
    frame: pd.DataFrame,
    images: ImageValues,
    tried: int,
    finished: int,
    seconds: Mapping[str, float],
    workers: int,
) -> Outlook:
    groups = [cell.group for cell in question.cells]
    benchmark = question.benchmark
    here = frame[frame["group"].isin(groups)]
    verdict = judge(question.claim, benchmark.name, benchmark.metrics, here, question.preset, images)
    pairs = verdict.effect.n if verdict.effect else 0
    further = verdict.further
    if question.out_of_reach:
        further = None
    elif not tried:
        # Where a side has no results yet, the claim cannot be judged, whatever its ruling.
        further = LEAST_SEEDS
    elif verdict.ruling == NOT_A_TEST or not finished:
        further = None
    elif verdict.ruling != "undecided":
        further = 0
    elif pairs < LEAST_SEEDS:
        # Networks that have not learned are no pairs. If most of them do not learn, seeds are no remedy.
        further = LEAST_SEEDS - pairs if tried < 4 * LEAST_SEEDS else None
    # Groups that have not run yet are taken to cost as much as the others.
    known = [seconds[group] for group in groups if group in seconds] or [*seconds.values()]
    cost = len(groups) * fmean(known) / min(workers, len(groups)) if known else None
    return Outlook(question, verdict, tried, further, cost)


def _is_tried(result: Result) -> bool:
    """Return whether running a cell again would change nothing; without a traceback the input was wrong or absent."""
    return result.status == "finished" or (result.status == "failed" and bool(result.traceback))


def _seeds(results: Sequence[Result], wanted: Callable[[Result], bool]) -> dict[str, set[int]]:
    """Return the seeds of the wanted results by group."""
    found: dict[str, set[int]] = {}
    for result in results:
        if wanted(result):
            found.setdefault(result.cell.group, set()).add(result.cell.seed)
    return found


def _common(question: Question, seeds: Mapping[str, set[int]]) -> int:
    """Return how many seeds all groups of a question have."""
    return len(set.intersection(*(seeds.get(cell.group, set()) for cell in question.cells)))


def _seconds(results: Sequence[Result]) -> dict[str, float]:
    """Return the mean time of a cell by group."""
    spent: dict[str, list[float]] = {}
    for result in results:
        if result.status == "finished":
            spent.setdefault(result.cell.group, []).append(result.seconds)
    return {group: fmean(found) for group, found in spent.items()}


def _by_cost(found: Sequence[Outlook]) -> list[Outlook]:
    """Return the open outlooks, the one that is cheapest to decide first."""
    return sorted((one for one in found if one.is_open), key=lambda one: one.cost)


def expected(found: Sequence[Outlook], budget: float | None) -> list[Outlook]:
    """Return the open outlooks that are expected to be decided within a budget in seconds (None: without limit)."""
    reached, spent = [], 0.0
    for outlook in _by_cost(found):
        spent += outlook.cost
        if budget is None or spent <= budget:
            reached.append(outlook)
    return reached


@dataclass(frozen=True)
class Limits:
    """When to stop: seconds in all, seeds per group; None is no limit."""

    seconds: float | None = None
    seeds: int | None = None


def next_batch(found: Sequence[Outlook], ledger: Ledger, left: float | None, most: int | None) -> list[Cell]:
    """Return the cells to run next: some seeds for the open question that is cheapest to decide; [] to stop.

    Half of the seeds that it is expected to need, so that the expectation is renewed before all are spent. One seed
    while no cell has run, which then gives the cost. All groups of the question get the same seeds. A question is
    passed over if a seed takes longer than the ``left`` seconds, or if its groups have ``most`` seeds.
    """
    for outlook in _by_cost(found):
        count = min(ceil((outlook.further or 0) / 2), LARGEST_BATCH)
        if outlook.seconds is None:
            count = 1
        elif outlook.seeds < LEAST_SEEDS:
            count = max(count, LEAST_SEEDS - outlook.seeds)
        if most is not None:
            count = min(count, most - outlook.seeds)
        if left is not None and outlook.seconds:
            count = min(count, int(left / outlook.seconds))
        if count > 0 and (cells := _missing_cells(outlook.question, ledger, count)):
            return cells
    return []


def _missing_cells(question: Question, ledger: Ledger, count: int) -> list[Cell]:
    """Return the cells that are not tried yet of the ``count`` lowest seeds that some group lacks.

    A seed with a cell that cannot be executed is passed over.
    """
    lacking: Iterator[list[Cell]] = (
        cells
        for seed in range(FIRST_RESERVE_SEED)
        if (cells := [cell for cell in question.with_seed(seed) if not _is_tried(ledger.result(cell))])
        and not any(ledger.record(cell.id).is_blocked() for cell in cells)
    )
    return [cell for cells in islice(lacking, count) for cell in cells]


def decide(
    ledger: Ledger,
    found: Sequence[Outlook],
    limits: Limits,
    execute: Callable[[Sequence[Cell]], None],
    workers: int = 1,
    clock: Callable[[], float] = time.monotonic,
) -> Sequence[Outlook]:
    """Add seeds to the ledger batch by batch until every question is decided or a limit is reached.

    ``found`` are the outlooks at the start; ``execute`` runs the cells of a batch. Returns the outlooks at the end.
    """
    start, last = clock(), None
    while True:
        left = None if limits.seconds is None else limits.seconds - (clock() - start)
        cells = next_batch(found, ledger, left, limits.seeds)
        # The same cells again: they were skipped, for want of data.
        if not cells or cells == last or (left is not None and left <= 0):
            return found
        execute(cells)
        last = cells
        found = outlooks(ledger, [outlook.question for outlook in found], workers)
