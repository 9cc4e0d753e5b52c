"""Execute cells as tasks on a Ray cluster. The driver owns the ledger, the nodes share no disk with it.

A task gets the checkpoints of its cells and streams every change to their records back while it trains; a thread of the
driver holds the locks of the cells meanwhile and writes the changes into the ledger.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from poolbench.core import Cell, DataLocation, UsageError
from poolbench.plugins import pack_plugins
from poolbench.runner.attempt import Settings
from poolbench.runner.cell import replica_groups
from poolbench.runner.cell_record import CellRecord
from poolbench.runner.dispatch import POLL_SECONDS, Dispatch
from poolbench.runner.group import Listener, Silent, execute_group
from poolbench.runner.ledger import Ledger
from poolbench.runner.ray_node import Order, Sent, run_order

REACH_SECONDS, STATUS_SECONDS = 5.0, 30.0  # to reach an address; for Ray to answer there
CAPACITY_SECONDS = 5.0  # how often a task that reports nothing makes us look whether a node is left for it
GET_SECONDS = 300.0  # for one batch of changes to arrive from its node
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's new rule, without the warning about the old one: tasks without a GPU see all GPUs; ours name the CPU.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class PlaceDied(BrokenExecutor):
    """The process or the node that trained is gone. The message says how Ray noticed."""


@contextmanager
def ray_cluster(address: str | None, device: str, jobs: int | None, slots_per_gpu: int) -> Iterator[RayCluster]:
    """Yield the executor on an existing cluster ("auto" or HOST:PORT), without an address on one for this context.

    ``device``: "auto" (the GPUs if the cluster has any), "cpu" or "cuda". Raises UsageError if Ray is not installed,
    nothing answers at the address, or the cluster does not have what is asked for.
    """
    os.environ.update(ENVIRONMENT)
    if address is None:
        # Ray listens on all interfaces: without a token, whoever reaches this machine could run code on it.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "--executor ray needs Ray, which is not installed: pip install 'poolbench[ray]', or leave --executor out"
        ) from error
    if address is not None:
        _check_address(address)
    if path := os.environ.get("PYTHONPATH"):
        # Ray's processes on this machine work in other folders.
        os.environ["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in path.split(os.pathsep) if entry)
    previous = signal.getsignal(signal.SIGTERM)  # ray.init replaces it
    # Ray prints messages about dead workers to stdout, which is for data.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            with TemporaryDirectory(prefix="poolbench-") as empty:
                ray.init(
                    address or "local",
                    # Without one, workers import what lies in the current folder before what is installed.
                    runtime_env={"working_dir": empty},
                    include_dashboard=None if address else False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
        except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
            where = f"connect to Ray at '{address}'" if address else "start Ray"
            raise UsageError(
                f"cannot {where}: {' '.join(str(error).split())}; the command has to run on a node of the cluster, "
                "with the cluster's versions of Python and Ray"
            ) from error
        try:
            signal.signal(signal.SIGTERM, previous)
            yield RayCluster(device, jobs, slots_per_gpu)
        finally:
            ray.shutdown()


def _check_address(address: str) -> None:
    """Raise UsageError unless Ray answers at the address; ray.init itself would retry for minutes."""
    host, _, port = address.rpartition(":")
    if address != "auto":
        if "://" in address or not host or not port.isdigit() or int(port) > 65535:
            raise UsageError(
                f"--address is auto or HOST:PORT, got '{address}'; run the command on a node of the cluster"
            )
        try:
            socket.create_connection((host, int(port)), REACH_SECONDS).close()
        except OSError as error:
            raise UsageError(
                f"nothing answers at --address {address} ({error}); 'ray start --head' on a node prints its address"
            ) from error
    command = [sys.executable, "-P", "-m", "ray.scripts.scripts", "status", "--address", address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=STATUS_SECONDS, check=False)
        reason = (
            "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no answer"])[-1].partition(". ")[0]
        )
    except subprocess.TimeoutExpired:
        reason = f"no answer in {STATUS_SECONDS:.0f} s"
    if reason:
        raise UsageError(
            f"no Ray cluster can be used at --address {address} ({reason}); start one with 'ray start --head', "
            "or leave --address out"
        )


class RayCluster:
    """An executor with the places of a cluster: one per GPU slot, or one per CPU."""

    def __init__(self, device: str, jobs: int | None, slots_per_gpu: int) -> None:
        if device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"with --executor ray, Ray chooses the GPU: --device is auto, cpu or cuda, got '{device}'")
        gpus = sum(_nodes("GPU"))
        self.device = device if device != "auto" else "cuda" if gpus else "cpu"
        self.slots = slots_per_gpu if self.device == "cuda" else 1
        found = self._places()
        if not found:
            raise UsageError(f"the Ray cluster has no place on '{self.device}': it has {_inventory()}")
        if jobs is not None and jobs > found:
            raise UsageError(f"--jobs {jobs} is more than the Ray cluster takes, {found}: it has {_inventory()}")
        self.places = jobs or found

    def __str__(self) -> str:
        return f"Ray: {_inventory()}; up to {self.places} at once on '{self.device}'"

    def _places(self) -> int:
        return self.slots * sum(_nodes("GPU" if self.device == "cuda" else "CPU"))

    def check_capacity(self) -> None:
        """Raise UsageError if no node is left that could take a task, which would otherwise wait for ever."""
        if not self._places():
            raise UsageError(
                f"the Ray cluster has no place on '{self.device}' any more: it has {_inventory()}; start nodes and "
                "run the command again (finished cells are kept)"
            )

    def execute(self, cells: Sequence[Cell], ledger: Ledger, settings: Settings, listener: Listener) -> None:
        """Execute the cells on the nodes, otherwise as :func:`poolbench.runner.execute.execute` does."""
        import ray

        share = {"num_cpus": 0, "num_gpus": 1 / self.slots} if self.device == "cuda" else {"num_cpus": 1}
        # No retries by Ray: they would start from the checkpoint that was sent at first.
        task = ray.remote(max_retries=0, scheduling_strategy="SPREAD", **share)(run_order)
        groups = replica_groups(cells, settings)
        places = [RayPlace(task.remote, self.check_capacity, ledger, settings) for _ in groups[: self.places]]
        try:
            Dispatch(groups, places, ledger, settings, listener).run()
        finally:
            for place in places:
                place.stop()


class RayPlace:
    """A thread that has one group of cells at a time executed on the cluster, and writes the ledger."""

    def __init__(
        self, start: Callable[[Order], Any], check_capacity: Callable[[], None], ledger: Ledger, settings: Settings
    ) -> None:
        self.start, self.check_capacity, self.ledger, self.settings = start, check_capacity, ledger, settings
        location = settings.location
        there = DataLocation(str(Path(location.folder).absolute()), location.download)
        self.remote_settings = replace(settings, location=there, plugins=())
        self._stopped = threading.Event()
        self._thread = ThreadPoolExecutor(1)

    def submit(self, cells: Sequence[Cell], wait: bool) -> Future[list[Cell]]:
        """Return the future of the group; it raises PlaceDied if the process or its node dies."""
        return self._thread.submit(self._execute, cells, wait)

    def stop(self) -> None:
        """Cancel the running task and wait for the thread."""
        self._stopped.set()
        self._thread.shutdown()

    def _execute(self, cells: Sequence[Cell], wait: bool) -> list[Cell]:
        while True:
            # Never blocks on a lock: a blocked thread could not be stopped.
            passed_over = execute_group(cells, self.ledger, self.settings, Silent(), wait=False, run=self._run)
            if not wait or not passed_over or self._stopped.wait(POLL_SECONDS):
                return passed_over

    def _run(
        self,
        cells: Sequence[Cell],
        records: Sequence[CellRecord],
        settings: Settings,
        on_epoch: Callable[[Cell, dict[str, float]], None],
    ) -> None:
        """Have the cells trained on a node and apply every change to their records here."""
        by_id = {record.cell_id: record for record in records}
        checkpoints = [record.checkpoint() for record in records]
        stream = self.start(Order(cells, checkpoints, self.remote_settings, pack_plugins(settings.plugins)))
        for batch in self._batches(stream):
            for sent in batch:
                by_id[sent.cell_id].change(sent.change)

    def _batches(self, stream: Any) -> Iterator[list[Sent]]:
        """Yield what a task sends until it ends; raise PlaceDied, or what was raised on the node."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        heard = time.monotonic()
        try:
            while not self._stopped.is_set():
                if ray.wait([stream], timeout=POLL_SECONDS)[0]:
                    reference = next(stream, None)
                    if reference is None:
                        return
                    yield ray.get(reference, timeout=GET_SECONDS)
                    heard = time.monotonic()
                elif time.monotonic() - heard > CAPACITY_SECONDS:
                    self.check_capacity()
                    heard = time.monotonic()
        except RayTaskError as error:
            raise _cause(error) from error
        except RayError as error:
            raise PlaceDied(f"{type(error).__name__}: {error}") from error
        ray.cancel(stream, force=True)
        raise PlaceDied("stopped by the driver")


def _cause(error: Any) -> Exception:
    """Return what a task raised; a node without poolbench is the user's to mend."""
    if isinstance(error.cause, UsageError):
        return error.cause
    if "failed to import" in str(error) or isinstance(error.cause, ImportError):
        last = str(error).strip().splitlines()[-1]
        return UsageError(f"a node cannot import poolbench: install the same version on every node ({last})")
    found: Exception = error
    return found


def _nodes(resource: str) -> list[int]:
    """Return the whole number of the resource ("CPU", "GPU") that each living node has."""
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [int(node["Resources"].get(resource, 0)) for node in nodes if node["Alive"]]


def _inventory() -> str:
    """Return what the living nodes have, like "2 nodes with 4 CPUs and 0 GPUs"."""
    cpus, gpus = _nodes("CPU"), _nodes("GPU")
    return f"{len(cpus)} node{'s' if len(cpus) != 1 else ''} with {sum(cpus)} CPUs and {sum(gpus)} GPUs"
