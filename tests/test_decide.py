"""Where seeds go: planted effects, a ledger in memory, and a clock that counts the cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from poolbench import registry
from poolbench.claim import Claim, Reach
from poolbench.core import Cell, Metric, Result, UsageError
from poolbench.decide import Limits, Outlook, Question, decide, expected, outlooks, questions
from poolbench.task import Benchmark

CellOf = Callable[..., Cell]
EFFECTS = {"max": 0.0, "aps": 0.03, "blur": 0.01, "avg": 0.0, "late": 0.0}
"""Accuracy above max pooling; the noise of a cell has a deviation of .01 / sqrt 2, that of a difference .01."""
SECONDS = 10.0


def claim(name: str, better: str, **changes: Any) -> Claim:
    return Claim(name, name, "s", "accuracy", {"pool": better}, {"pool": "max"}, margin=0.001, **changes)


CLAIMS = (claim("large", "aps"), claim("small", "blur"), claim("none", "avg"))


@pytest.fixture(autouse=True)
def study(monkeypatch: pytest.MonkeyPatch) -> list[Claim]:
    """Register the benchmark of the cells; its claims can be changed."""
    claims = list(CLAIMS)

    def make() -> Benchmark:
        return Benchmark(
            "study", "Study", "?", "", (Metric("accuracy", "accuracy", True, 0.001),), {}, {},
            lambda *_: None, claims=tuple(claims),  # type: ignore[arg-type, return-value]
        )  # fmt: skip

    monkeypatch.setitem(registry.benchmarks._entries, "study", registry.Entry("study", make))
    return claims


@dataclass
class Memory:
    """A ledger in memory; it executes a cell by drawing its accuracy, in ``SECONDS`` of its clock."""

    failing: str = ""
    blocked: frozenset[str] = frozenset()
    failure: Any = "failed"
    now: float = 0.0
    found: dict[str, Result] = field(default_factory=dict)
    batches: list[Sequence[Cell]] = field(default_factory=list)

    def survey(self) -> tuple[list[Result], list[str]]:
        return list(self.found.values()), []

    def result(self, cell: Cell) -> Result:
        return self.found.get(cell.id, Result(cell, "pending"))

    def record(self, cell: str) -> Any:
        def table(name: str) -> pd.DataFrame:
            raise FileNotFoundError(name)

        return SimpleNamespace(table=table, is_blocked=lambda: cell in self.blocked)

    def execute(self, cells: Sequence[Cell]) -> None:
        self.batches.append(cells)
        for cell in cells:
            pool = cell.pool.name
            noise = np.random.default_rng([cell.seed, list(EFFECTS).index(pool)]).normal(0, 0.01 / 2**0.5)
            status: Any = self.failure if pool == self.failing else "finished"
            metrics = {"accuracy": 0.8 + EFFECTS[pool] + noise} if status == "finished" else {}
            trace = "made up" if status == "failed" else ""
            self.found[cell.id] = Result(cell, status, metrics=metrics, facts={"seconds_fit": SECONDS}, traceback=trace)
            self.now += SECONDS

    def seeds(self, pool: str) -> list[int]:
        return sorted(r.cell.seed for r in self.found.values() if r.cell.pool.name == pool)

    def decide(self, asked: Sequence[Question], **limits: Any) -> dict[str, Outlook]:
        start = outlooks(self, asked)  # type: ignore[arg-type]
        found = decide(self, start, Limits(**limits), self.execute, clock=lambda: self.now)  # type: ignore[arg-type]
        return {one.question.claim.name: one for one in found}


@pytest.fixture
def cells(cell_of: CellOf) -> list[Cell]:
    return [cell_of(pool, 0) for pool in ("max", "aps", "blur", "avg")]


def test_seeds_go_where_they_decide_most_and_pairs_stay_complete(cells: list[Cell]) -> None:
    memory = Memory()
    found = memory.decide(questions(cells, "quick"), seconds=1500.0)
    assert found["large"].verdict.ruling == "holds"
    assert found["small"].verdict.ruling == "holds"
    # The large effect takes few seeds, and none once it is decided.
    assert len(memory.seeds("aps")) < 10 < len(memory.seeds("blur"))
    assert set(memory.seeds("aps")) | set(memory.seeds("blur")) | set(memory.seeds("avg")) == set(memory.seeds("max"))
    assert memory.now <= 1500.0


@pytest.mark.parametrize("budget", [95.0, 200.0, 430.0])
def test_the_budget_is_kept_and_the_next_call_goes_on(cells: list[Cell], budget: float) -> None:
    memory, asked = Memory(), questions(cells, "quick")
    for _ in range(3):
        start = memory.now
        memory.decide(asked, seconds=budget)
        # The first seed has no known cost; from then on no batch is begun that would not fit.
        assert memory.now - start <= budget
    again = Memory()
    again.decide(asked, seconds=memory.now)
    assert memory.seeds("aps") == again.seeds("aps")


def test_a_cap_on_seeds_is_kept(cells: list[Cell]) -> None:
    memory = Memory()
    found = memory.decide(questions(cells, "quick", ["none"]), seeds=11)
    assert memory.seeds("avg") == memory.seeds("max") == list(range(11))
    assert memory.seeds("aps") == []
    assert found["none"].is_open == (found["none"].further not in (0, None))


def test_what_is_decided_runs_nothing(cells: list[Cell]) -> None:
    memory, asked = Memory(), questions(cells, "quick", ["large"])
    memory.decide(asked)
    batches = len(memory.batches)
    (again,) = memory.decide(asked).values()
    assert (len(memory.batches), again.further, again.cost) == (batches, 0, 0.0)


def test_cells_that_fail_are_not_run_for_ever(cells: list[Cell]) -> None:
    memory = Memory(failing="aps")
    found = memory.decide(questions(cells, "quick", ["large"]), seconds=1000.0)
    # One seed tells that a side has no networks.
    assert (found["large"].seeds, found["large"].further) == (1, None)
    assert len(memory.batches) == 1


def test_a_seed_with_a_cell_that_cannot_be_executed_is_passed_over(cells: list[Cell]) -> None:
    blocked = replace(cells[0], seed=2)
    memory = Memory(blocked=frozenset([blocked.id]))
    found = memory.decide(questions(cells, "quick", ["large"]), seeds=6)
    assert found["large"].verdict.ruling == "holds"
    assert 2 not in memory.seeds("max")
    assert memory.seeds("max") == memory.seeds("aps")
    assert set(memory.seeds("max")) >= {0, 1, 3, 4}


def test_a_claim_out_of_reach_gets_no_seeds(cells: list[Cell], study: list[Claim]) -> None:
    reaches = [Reach(datasets=("photographs",)), Reach(presets=("paper",)), Reach(min_epochs=12)]
    study[:] = [claim(f"elsewhere {number}", "aps", reach=reach) for number, reach in enumerate(reaches)]
    memory = Memory()
    assert [one.further for one in memory.decide(questions(cells, "quick")).values()] == [None] * 3
    memory.execute(cells)
    found = memory.decide(questions(cells, "quick"))
    assert {one.further for one in found.values()} == {None}
    assert len(memory.batches) == 1


def test_skipped_cells_are_tried_again_by_the_next_call_only(cells: list[Cell]) -> None:
    memory = Memory(failing="aps", failure="skipped")
    asked = questions(cells, "quick", ["large"])
    memory.decide(asked)
    assert len(memory.batches) <= 3
    memory.failing = ""
    assert memory.decide(asked)["large"].verdict.ruling == "holds"


def test_a_question_has_the_groups_that_its_claim_compares(cell_of: CellOf) -> None:
    cells = [cell_of(pool, 0, head=head) for pool in ("max", "aps") for head in ("avg", "gem")]
    cells.append(cell_of("aps", 0, head="lse"))
    (found,) = questions(cells, "quick", ["large"])
    # The head that has no counterpart with max pooling is none of them.
    assert {(cell.pool.name, cell.head.name) for cell in found.cells} == {
        (pool, head) for pool in ("max", "aps") for head in ("avg", "gem")
    }


@pytest.mark.parametrize(
    ("wanted", "message"),
    [("lagre", r"unknown claim 'lagre'.*large"), ("small", "the selected cells cannot judge the claim 'small'")],
)
def test_claims_that_cannot_be_judged_are_refused(cell_of: CellOf, wanted: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        questions([cell_of("max", 0), cell_of("aps", 0)], "quick", [wanted])


def test_the_expectation_counts_what_fits_into_the_budget(cells: list[Cell]) -> None:
    memory, asked = Memory(), questions(cells, "quick")
    memory.execute([cell for seed in range(5) for question in asked for cell in question.with_seed(seed)])
    found = outlooks(memory, asked, workers=2)  # type: ignore[arg-type]
    undecided = [one for one in found if one.is_open]
    assert {one.seconds for one in found} == {SECONDS}  # two groups on two workers
    assert expected(found, 0.0) == []
    assert len(expected(found, None)) == len(undecided)
    cheapest = min(one.cost for one in undecided)
    assert [one.cost for one in expected(found, cheapest)] == [cheapest]
