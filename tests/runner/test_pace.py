"""The expected end of an execution, by simulation: random grids whose cells differ by a factor of 50 and more."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from poolbench.core import Cell, Component, Result, TrainConfig
from poolbench.runner.pace import Cost, Pace, scouts_first

NO_TABLE = Component("none")


def cell_of(benchmark: str, architecture: str, pool: str, seed: int, epochs: int = 10, images: int = 1000) -> Cell:
    train = TrainConfig(epochs, train_images=images)
    return Cell(benchmark, Component("drawn"), Component(architecture), Component(pool), NO_TABLE, "one", seed, train)


@dataclass(frozen=True)
class World:
    """Parts in their order, the true cost of each cell, and how they are executed."""

    parts: Sequence[Sequence[Cell]]
    costs: dict[Cell, Cost]
    workers: int
    start_up: float = 0.0  # of each worker
    pause: float = 0.0  # after each part

    def result(self, cell: Cell) -> Result:
        cost = self.costs[cell]
        return Result(cell, "finished", 0.0, 1.0, facts={"seconds_fit": cost.fit, "seconds_measure": cost.rest})

    def schedule(self) -> Iterator[tuple[float, float, Sequence[Cell]]]:
        """Yield start, end and cells of each part; the first one of a worker starts with the worker."""
        free = [(0.0, worker, self.start_up) for worker in range(self.workers)]
        for part in self.parts:
            start, worker, start_up = heapq.heappop(free)
            end = start + start_up + sum(self.costs[cell].total for cell in part)
            heapq.heappush(free, (end + self.pause, worker, 0.0))
            yield start, end, part

    def events(self) -> list[tuple[float, int, str, Cell, int]]:
        found = []
        for number, (start, end, part) in enumerate(self.schedule()):
            fit = sum(self.costs[cell].fit for cell in part)
            training = end - sum(self.costs[cell].total for cell in part)
            for cell in part:
                epochs = cell.train.epochs
                found.append((start, number, "started", cell, 0))
                found += [(training + fit * k / epochs, number, "epoch", cell, k) for k in range(1, epochs + 1)]
                found.append((end, number, "ended", cell, 0))
        return sorted(found, key=lambda event: event[0])

    @property
    def seconds(self) -> float:
        return max(end for _, end, _ in self.schedule())

    def expectations(self, shares: Sequence[float], earlier: Sequence[Result] = ()) -> list[float]:
        """Return the expected time left by the true one, after these shares of the time."""
        pace = Pace(self.workers, earlier)
        pace.expect(self.parts)
        total, due, found = self.seconds, list(shares), []
        for time, _, what, cell, epoch in self.events():
            while due and time > due[0] * total:
                now = due.pop(0) * total
                left = pace.left(now)
                assert left is not None
                found.append(left / (total - now))
            if what == "started":
                pace.started(cell, time)
            elif what == "epoch":
                pace.epoch_ended(cell, epoch, time)
            else:
                pace.ended(self.result(cell), time)
        return found


def random_world(chance: random.Random) -> World:
    """Make 40 cells or more of 1 to 5 benchmarks; costs per image differ 30-fold, epochs 20-fold, seeds a little."""
    workers, stack = chance.choice([1, 2, 2, 4, 8]), chance.choice([1, 1, 1, 3])
    groups: list[list[Cell]] = []
    costs: dict[Cell, Cost] = {}
    while sum(map(len, groups)) < max(40, 20 * workers):
        for _ in range(chance.randint(1, 5)):
            benchmark = len(groups)
            seeds = chance.randint(1, 8)
            for network in range(chance.randint(1, 2)):
                rate, measure = 1e-4 * 30 ** chance.random(), 0.3 * 30 ** chance.random()
                epochs = chance.sample([1, 2, 5, 10, 20], chance.randint(1, 2))
                for pool in range(chance.randint(1, 5)):
                    slower = chance.lognormvariate(0.3, 0.4)
                    for count in epochs:
                        cells = [cell_of(f"b{benchmark}", f"a{network}", f"p{pool}", s, count) for s in range(seeds)]
                        for cell in cells:
                            fit = rate * slower * count * 1000 * chance.lognormvariate(0, 0.1)
                            costs[cell] = Cost(fit, measure * chance.lognormvariate(0, 0.2))
                        groups.append(cells)
    parts = [cells[at : at + stack] for cells in groups for at in range(0, len(cells), stack)]
    return World(scouts_first(parts), costs, workers, chance.uniform(0, 5), chance.uniform(0, 0.3))


def share_within_two(found: Sequence[float]) -> float:
    return sum(0.5 <= ratio <= 2 for ratio in found) / len(found)


def worlds(count: int) -> list[World]:
    return [random_world(random.Random(seed)) for seed in range(count)]


def test_after_a_tenth_of_the_time_the_rest_is_known_within_a_factor_of_two() -> None:
    made = worlds(100)
    spread = sorted(max(c.total for c in w.costs.values()) / min(c.total for c in w.costs.values()) for w in made)
    assert spread[len(spread) // 2] > 30
    tenth, half = zip(*(world.expectations([0.1, 0.5]) for world in made), strict=True)
    assert share_within_two(tenth) >= 0.95
    assert share_within_two(half) >= 0.98


def test_a_resumed_run_knows_it_from_the_start() -> None:
    found = []
    for number, world in enumerate(worlds(60)):
        # It was killed at some time: the parts before are finished.
        done = random.Random(number).randint(len(world.parts) // 5, len(world.parts) // 2)
        earlier = [world.result(cell) for part in world.parts[:done] for cell in part]
        rest = World(world.parts[done:], world.costs, world.workers, world.start_up, world.pause)
        found += rest.expectations([0.02], earlier)
    assert share_within_two(found) >= 0.95


def test_results_of_another_machine_are_corrected() -> None:
    found = []
    for world in worlds(40):
        slow = {cell: Cost(8 * cost.fit, 8 * cost.rest) for cell, cost in world.costs.items()}
        earlier = [World(world.parts, slow, 1).result(part[0]) for part in world.parts[::3]]
        found += world.expectations([0.1], earlier)
    assert share_within_two(found) >= 0.95


def test_a_single_long_cell_is_known_by_its_epochs() -> None:
    cell = cell_of("b", "a", "max", 0, epochs=100)
    pace = Pace(4)
    pace.expect([[cell]])
    pace.started(cell, 0.0)
    assert pace.left(50.0) is None
    for epoch in (11, 12, 13):  # it was resumed after the tenth
        pace.epoch_ended(cell, epoch, 36.0 * epoch)
    assert pace.left(36.0 * 13) == pytest.approx(36.0 * 87 + 1, abs=1)
    # Its worker dies and it begins again at the checkpoint.
    pace.started(cell, 500.0)
    pace.epoch_ended(cell, 11, 550.0)
    pace.epoch_ended(cell, 12, 560.0)
    assert pace.left(565.0) == pytest.approx(880 - 5 + 1, abs=1)


def test_seeds_that_train_as_one_network_share_their_epochs() -> None:
    cells = [cell_of("b", "a", "max", seed, epochs=20) for seed in range(8)]
    pace = Pace(1)
    pace.expect([cells])
    for cell in cells:
        pace.started(cell, 0.0)
    for epoch in (1, 2):
        for cell in cells:
            pace.epoch_ended(cell, epoch, 10.0 * epoch)
    assert pace.left(20.0) == pytest.approx(180 + 8, abs=1)


def test_idle_workers_at_the_end_do_not_slow_it_down() -> None:
    cells = [cell_of("b", "a", "max", seed) for seed in range(9)]
    costs = dict.fromkeys(cells, Cost(60.0, 0.0))
    world = World([[cell] for cell in cells], costs, 8)
    assert world.expectations([0.45, 0.6, 0.9]) == pytest.approx([1.0, 1.0, 1.0], rel=0.05)


def test_the_first_of_each_kind_comes_first_the_short_ones_before() -> None:
    def parts(architecture: str, epochs: int) -> list[list[Cell]]:
        return [[cell_of("b", architecture, pool, 0, epochs)] for pool in ("max", "avg")]

    long, short, middle = parts("x", 50), parts("y", 1), parts("z", 5)
    assert scouts_first([*long, *short, *middle]) == [
        short[0], middle[0], long[0], long[1], short[1], middle[1],
    ]  # fmt: skip
