"""Where cells are executed: worker processes on this machine, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from poolbench.cli.options import MOST_JOBS, gathered, jobs_option, say
from poolbench.core import Result, UsageError

if TYPE_CHECKING:
    from poolbench.runner.execute import Executor


@dataclass(frozen=True)
class Executors:
    """The options of a command that say where cells are executed, and how many at once."""

    executor: str
    address: str | None
    jobs: int | None
    slots_per_gpu: int

    @contextmanager
    def open(self, device: str) -> Iterator[Executor]:
        """Yield the executor for a device as the user named it; raise UsageError for one that is not there."""
        if self.executor == "ray":
            from poolbench.runner.ray_cluster import ray_cluster

            with ray_cluster(self.address, device, self.jobs, self.slots_per_gpu) as cluster:
                say(str(cluster))
                yield cluster
            return
        if self.address is not None:
            raise UsageError("--address names a Ray cluster: add --executor ray, or leave it out")
        from poolbench.runner.environment import resolve_device
        from poolbench.runner.execute import LocalExecutor
        from poolbench.runner.workers import slots

        kind = resolve_device(device)
        yield LocalExecutor(kind, slots(kind, self.jobs, self.slots_per_gpu))

    def say_what_nodes_need(self, results: Sequence[Result]) -> None:
        """On Ray, say what every node needs if cells had no data or wrong input."""
        unusable = (
            result.status == "skipped" or (result.status == "failed" and not result.traceback) for result in results
        )
        if self.executor == "ray" and any(unusable):
            say("on Ray, data has to be on every node: below the same --data-dir, or fetched there with --download")


executor_options = gathered(
    "executors",
    Executors,
    jobs_option,
    click.option(
        "--slots-per-gpu",
        type=click.IntRange(1, MOST_JOBS),
        default=1,
        show_default=True,
        help="Groups of cells that share a GPU.",
    ),
    click.option(
        "--executor",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="Worker processes on this machine, or tasks on a Ray cluster.",
    ),
    click.option(
        "--address",
        metavar="auto|HOST:PORT",
        help="Existing Ray cluster that this machine is a node of (default: one on this machine for this command).",
    ),
)
