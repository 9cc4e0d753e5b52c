"""One attempt at a cell: from its checkpoint, if there is one, to its record."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from poolbench.core import Cell, DataLocation, UsageError
from poolbench.registry import origins
from poolbench.runner.environment import environment
from poolbench.runner.gpu import gpu_state
from poolbench.runner.record import Record

if TYPE_CHECKING:
    from poolbench.engine.checkpoint import Checkpoint
    from poolbench.engine.loop import Row, Training

CHECKPOINT_SECONDS = 30.0
MAX_REPLICAS = 64


@dataclass(frozen=True)
class Settings:
    """The surroundings of one invocation's cells, which are no part of their configuration.

    ``replicas``: maximum number of seeds trained as one stacked network (None: as many as fit on a GPU, one on a
    CPU, where stacking costs more than it saves). Results are equal up to rounding. ``deterministic`` restricts a
    GPU to kernels with reproducible bits. A checkpoint is written at the first end of an epoch
    ``checkpoint_seconds`` after the last one, later where writing is slow, and at the end of training; 0 writes one
    per epoch. ``plugins`` are the files or modules that worker processes import first.
    """

    location: DataLocation
    device: str
    invocation: str = ""
    replicas: int | None = None
    deterministic: bool = False
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    plugins: Sequence[str] = ()

    @property
    def max_replicas(self) -> int:
        """Maximum number of seeds trained as one stacked network on this device."""
        if self.replicas is None:
            return MAX_REPLICAS if self.device.startswith("cuda") else 1
        return self.replicas


@dataclass
class Attempt:
    """A cell in training: its record, the checkpoint it started from, its epochs and seconds so far."""

    cell: Cell
    record: Record
    checkpoint: Checkpoint | None
    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    failed: bool = False

    @property
    def start_epoch(self) -> int:
        """The epoch of the checkpoint, 0 without one."""
        return self.checkpoint.epoch if self.checkpoint else 0

    def fail(self, error: Exception) -> None:
        """Record that the cell failed: an input error with its line alone, any other with the traceback."""
        self.failed = True
        if isinstance(error, UsageError):
            # Without a traceback the next run tries again: the input may be corrected by then.
            self.record.append("failed", reason=str(error), traceback="")
        else:
            trace = "".join(traceback.format_exception(error))
            self.record.append("failed", reason=f"{type(error).__name__}: {error}", traceback=trace)


def attempt_facts(cell: Cell, settings: Settings) -> dict[str, Any]:
    """Return what is recorded when an attempt begins: invocation, environment, and the plugins the cell needs."""
    return {
        "invocation": settings.invocation,
        "environment": {**environment(settings.device), "deterministic": settings.deterministic},
        "plugins": origins(cell),
    }


def open_attempt(cell: Cell, record: Record, settings: Settings) -> Attempt:
    """Begin an attempt, or resume the one whose checkpoint is in the record."""
    from poolbench.engine.checkpoint import UnfitCheckpoint, unpack

    facts = attempt_facts(cell, settings)
    content = record.checkpoint()
    if content is not None:
        try:
            checkpoint = unpack(content, cell.id, settings.device)
            record.resume(cell, checkpoint.epoch, facts, checkpoint.rows)
            return Attempt(cell, record, checkpoint, list(checkpoint.rows), checkpoint.seconds)
        except UnfitCheckpoint as unfit:
            facts["from_the_start"] = str(unfit)
    record.begin(cell, facts)
    return Attempt(cell, record, None)


class EpochLog:
    """Records the epochs of attempts that train together, and writes their checkpoints when they are due."""

    def __init__(
        self, attempts: Sequence[Attempt], settings: Settings, on_epoch: Callable[[Cell, dict[str, float]], None]
    ) -> None:
        self.attempts, self.settings, self.on_epoch = attempts, settings, on_epoch
        self._earlier = [attempt.seconds for attempt in attempts]
        self._began = self._saved = time.perf_counter()
        self._pause = settings.checkpoint_seconds

    def add(self, training: Training, rows: Sequence[Row]) -> None:
        """Record one epoch of each attempt, with the state of the GPU; one that diverged fails, the others go on."""
        from poolbench.engine.loop import TrainingDiverged, check_finite

        state = gpu_state(self.settings.device)
        for attempt, row in zip(self.attempts, rows, strict=True):
            if attempt.failed:
                continue
            try:
                check_finite(row)
            except TrainingDiverged as diverged:
                attempt.fail(diverged)
                continue
            attempt.record.append("epoch", **row, **state)
            attempt.rows.append(row)
            self.on_epoch(attempt.cell, row)
        now = time.perf_counter()
        for attempt, before in zip(self.attempts, self._earlier, strict=True):
            attempt.seconds = before + (now - self._began) / len(self.attempts)
        # Always at the end: a measure that fails must not cost the training.
        if training.epoch == training.config.epochs or now - self._saved >= self._pause:
            self._save(training, now)

    def _save(self, training: Training, now: float) -> None:
        from poolbench.engine import checkpoint

        device = self.settings.device
        for attempt, state in zip(self.attempts, training.states(), strict=True):
            if not attempt.failed:
                content = checkpoint.Checkpoint(state, attempt.rows, attempt.seconds)
                attempt.record.save_checkpoint(checkpoint.pack(content, attempt.cell.id, device))
        self._saved = time.perf_counter()
        if self.settings.checkpoint_seconds:
            cost = checkpoint.MIN_TRAIN_TO_SAVE_RATIO * (self._saved - now)
            self._pause = max(self.settings.checkpoint_seconds, cost)
