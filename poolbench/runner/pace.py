"""How long the cells that are left will take: from what cells like them took, and from how many run at once.

Cells of a grid can differ by a factor of 50 in cost, so counting them says little about the time. The first cell of
each kind runs first (:func:`scouts_first`), so that soon no kind has to be guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heapreplace

from poolbench.core import Cell, Result

IMAGES = 2000  # in a data set that does not say how many: that of the embedded samples


@dataclass(frozen=True)
class Cost:
    """Seconds of a cell: of its training, and of all else (loading, measuring), which epochs do not change."""

    fit: float
    rest: float

    @property
    def total(self) -> float:
        return self.fit + self.rest

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.fit + other.fit, self.rest + other.rest)


NOTHING = Cost(0.0, 0.0)


def first_guess(cell: Cell) -> Cost:
    """Return a cost that is known without any result: right in the number of epochs and images, not in seconds."""
    images = cell.train.train_images or int(cell.dataset.options.get("samples") or IMAGES)
    return Cost(4e-4 * cell.train.epochs * images, 1.0)


def kind(cell: Cell) -> Hashable:
    """Return what cells of a similar cost per image have in common."""
    return cell.benchmark, cell.dataset.name, cell.architecture.name


def scouts_first(parts: Sequence[Sequence[Cell]]) -> list[Sequence[Cell]]:
    """Return the parts with the first one of each kind in front, those that seem short before the others.

    They tell what their kind costs, and what is wrong with it, before the long work begins.
    """
    first: dict[Hashable, Sequence[Cell]] = {}
    for part in parts:
        first.setdefault(kind(part[0]), part)
    scouts = {id(part) for part in first.values()}
    ordered = sorted(first.values(), key=lambda part: first_guess(part[0]).total * len(part))
    return ordered + [part for part in parts if id(part) not in scouts]


class Costs:
    """Expected costs: a guess, corrected by what the most similar cells took that have a result.

    The correction is the ratio of their seconds to those guessed, for training and for the rest. In a cell's own
    comparison group the guess is one number, so there the expectation is the mean.
    """

    def __init__(self, guess: Callable[[Cell], Cost]) -> None:
        self._guess = guess
        self._sums: dict[Hashable, tuple[Cost, Cost]] = {}

    def __bool__(self) -> bool:
        """Whether any result is known."""
        return bool(self._sums)

    def add(self, cell: Cell, took: Cost) -> None:
        """Learn what a cell took."""
        guessed = self._guess(cell)
        for level in _levels(cell):
            sums = self._sums.get(level, (NOTHING, NOTHING))
            self._sums[level] = sums[0] + took, sums[1] + guessed

    def add_result(self, result: Result) -> None:
        """Learn from a result; one that is not finished tells nothing."""
        if result.status == "finished":
            fit = float(result.facts.get("seconds_fit", 0.0))
            self.add(result.cell, Cost(fit, result.seconds - fit))

    def copy(self) -> Costs:
        """Return expectations that can learn more without changing these."""
        copied = Costs(self._guess)
        copied._sums = dict(self._sums)
        return copied

    def expected(self, cell: Cell) -> Cost:
        """Return the expected cost of a cell."""
        guess = self._guess(cell)
        for level in _levels(cell):
            if level in self._sums:
                took, guessed = self._sums[level]
                return Cost(guess.fit * _ratio(took.fit, guessed.fit), guess.rest * _ratio(took.rest, guessed.rest))
        return guess


def _levels(cell: Cell) -> tuple[Hashable, ...]:
    """Return what cells can have in common, from the most to the least similar: their group first."""
    return cell.group, (kind(cell), cell.pool.name), kind(cell), cell.benchmark, ()


def _ratio(took: float, guessed: float) -> float:
    return took / guessed if guessed else 1.0


@dataclass(eq=False)
class Part:
    """Cells that one worker trains together, when it began with them, and the first and last epoch seen since."""

    cells: set[Cell]
    epochs: int
    group: str
    started: float | None = None
    seen: list[tuple[int, float]] = field(default_factory=list)

    def saw(self, epoch: int, now: float) -> None:
        """Remember an epoch that has ended; cells that train together tell each one, and an earlier one begins anew."""
        last = self.seen[-1][0] if self.seen else 0
        if epoch != last:
            self.seen = [*(self.seen[:1] if epoch > last else ()), (epoch, now)]

    @property
    def per_epoch(self) -> float | None:
        """Seconds of an epoch, None before two were seen: the time before the first has other work in it."""
        if len(self.seen) < 2:
            return None
        (first, then), (last, at) = self.seen
        return (at - then) / (last - first)

    def so_far(self, each: Cost, seconds: float) -> Cost | None:
        """Return what each cell will have cost by what is seen of it after ``seconds``, None if that is as expected."""
        number = len(self.cells)
        if self.per_epoch is not None:
            return Cost(self.per_epoch * self.epochs / number, each.rest)
        late = 0.0 if self.seen else seconds / number - each.total
        return Cost(each.fit + late, each.rest) if late > 0 else None

    def left(self, each: Cost, now: float) -> float:
        """Return the seconds until its end, where ``each`` cell is expected to cost that."""
        fit, rest = each.fit * len(self.cells), each.rest * len(self.cells)
        if self.started is None:
            return fit + rest
        if not self.seen:
            return max(fit + rest - (now - self.started), 0.0)
        last, at = self.seen[-1]
        per_epoch = fit / self.epochs if self.per_epoch is None else self.per_epoch
        return max((self.epochs - last) * per_epoch + rest - (now - at), 0.0)


class Pace:
    """Expects the end of an execution by ``workers`` at once; it is told what starts and ends, in seconds of one clock.

    ``earlier`` are results of the same machine before this execution.
    """

    def __init__(self, workers: int, earlier: Iterable[Result] = ()) -> None:
        self.workers = workers
        self._earlier = Costs(first_guess)
        for result in earlier:
            self._earlier.add_result(result)
        self._now = Costs(self._earlier.expected)
        self._parts: dict[Part, None] = {}
        self._part_of: dict[Cell, Part] = {}
        self._began: float | None = None
        self._busy, self._slowdown = 0.0, 1.0

    def expect(self, parts: Iterable[Sequence[Cell]]) -> None:
        """Add parts, which are executed in this order, each by one worker."""
        for cells in parts:
            part = Part(set(cells), cells[0].train.epochs, cells[0].group)
            self._parts[part] = None
            self._part_of |= dict.fromkeys(cells, part)

    def started(self, cell: Cell, now: float) -> None:
        """A worker begins with a cell, maybe once more."""
        part = self._part_of[cell]
        part.started, part.seen = now, []

    def epoch_ended(self, cell: Cell, epoch: int, now: float) -> None:
        """A cell has trained this many epochs."""
        self._part_of[cell].saw(epoch, now)

    def ended(self, result: Result, now: float) -> None:
        """A cell has a result."""
        part = self._part_of.pop(result.cell)
        part.cells.remove(result.cell)
        if not part.cells:
            del self._parts[part]
        self._now.add_result(result)
        here = now - (now if part.started is None else part.started)
        # The seconds of a resumed cell are those of all its attempts.
        self._busy += min(result.seconds, here) if "resumed_after" in result.facts else result.seconds
        if self._began is None:
            # Not before the first cell: starting the workers is over, whatever is left.
            self._began = now - result.seconds

    def left(self, now: float) -> float | None:
        """Return the expected seconds until all is done, None while nothing is known."""
        running = [part for part in self._parts if part.started is not None]
        waiting = [part for part in self._parts if part.started is None]
        if not (self._now or self._earlier or any(part.per_epoch for part in running)):
            return None
        costs = self._costs(running, now)
        free = [part.left(costs[part.group], now) for part in running]
        free += [0.0] * (self.workers - len(free))
        heapify(free)
        for part in waiting:
            heapreplace(free, free[0] + part.left(costs[part.group], now))
        if waiting:
            self._slowdown = self._measure_slowdown(running, now)
        return max(free) * self._slowdown

    def _costs(self, running: Sequence[Part], now: float) -> dict[str, Cost]:
        """Return the expected cost of a cell by group, from the results and from what is seen of running cells."""
        costs = self._now.copy()
        for part in running:
            cell = next(iter(part.cells))
            if so_far := part.so_far(self._now.expected(cell), self._worked(part, now)):
                costs.add(cell, so_far)
        cells = {part.group: next(iter(part.cells)) for part in self._parts}
        return {group: costs.expected(cell) for group, cell in cells.items()}

    def _worked(self, part: Part, now: float) -> float:
        """Return the seconds that a worker has spent on a running part, without those in which it was started."""
        if part.started is None or self._began is None:
            return 0.0
        return now - max(part.started, self._began)

    def _measure_slowdown(self, running: Sequence[Part], now: float) -> float:
        """Return the time that has passed by what the cells themselves account for: 2 if workers wait half of it.

        Only while all workers have something to do.
        """
        busy = self._busy + sum(self._worked(part, now) for part in running)
        return self.workers * (now - self._began) / busy if self._began is not None and busy else 1.0
