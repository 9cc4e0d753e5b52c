"""What commands that execute cells share: where they work, MLflow, the report, and how they are interrupted."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from poolbench.cli.options import (
    data_dir_option,
    device_option,
    gathered,
    no_mlflow_option,
    out_option,
    plugin_option,
    say,
    uri_option,
)
from poolbench.core import DataLocation, Result, UsageError
from poolbench.files import storage

if TYPE_CHECKING:
    from poolbench.runner.attempt import Settings
    from poolbench.runner.invocation import Invocation
    from poolbench.runner.ledger import Ledger
    from poolbench_tracking.mlflow_sink import MlflowSink

T = TypeVar("T")


@dataclass(frozen=True)
class Work:
    """The options of a command that executes cells: work folder, device, data, MLflow, plugins."""

    out: Path
    device: str
    data_dir: str
    download: bool
    tracking_uri: str | None
    no_mlflow: bool
    plugins: Sequence[str]

    def settings(self, device: str, **more: Any) -> Settings:
        """Return the settings of the runner for cells on ``device``."""
        from poolbench.runner.attempt import Settings

        return Settings(DataLocation(self.data_dir, self.download), device, plugins=self.plugins, **more)

    def tracking(self) -> Tracking:
        """Return the connection to MLflow."""
        return Tracking(self.out, self.tracking_uri, wanted=not self.no_mlflow)


work_options = gathered(
    "work",
    Work,
    plugin_option(pass_on=True),
    out_option,
    device_option,
    data_dir_option,
    click.option("--download", is_flag=True, help="Download data sets that are missing."),
    uri_option,
    no_mlflow_option,
)


class Tracking:
    """MLflow, connected on first use. After its first failure, which is reported, only the ledger is written."""

    def __init__(self, out: Path, uri: str | None, wanted: bool = True) -> None:
        self.out, self.uri, self.wanted = out, uri, wanted
        self._sink: MlflowSink | None = None

    def attempt(self, action: Callable[[MlflowSink], T], otherwise: T) -> T:
        """Return the result of the action, or ``otherwise`` if MLflow is not wanted or cannot be reached."""
        if not self.wanted:
            return otherwise
        from poolbench_tracking.mlflow_sink import MlflowSink, TrackingUnavailable

        try:
            self._sink = self._sink or MlflowSink(self.out, self.uri)
            return action(self._sink)
        except TrackingUnavailable as error:
            self.wanted = False
            say(f"going on without MLflow, 'poolbench sync' catches up later: {error}")
            return otherwise

    def project(self, invocation: Invocation, result: Result) -> None:
        """Write the MLflow run of one result."""
        self.attempt(lambda sink: sink.project(result, invocation), None)

    def sync(self, ledger: Ledger) -> None:
        """Write all MLflow runs of a ledger that are missing."""
        from poolbench.cli.progress import counting

        with counting("groups in MLflow") as show:
            self.attempt(lambda sink: sink.sync([ledger], show), 0)


def write_report(ledger: Ledger, tracking: Tracking, invocation: Invocation | None = None) -> Path:
    """Write the report into the work folder, with links to MLflow and a live page; return the path of the HTML.

    The MLflow run of ``invocation`` gets a copy. Raises StorageError if the work folder cannot be written.
    """
    from filelock import FileLock

    from poolbench_tracking.links import Links
    from poolbench_tracking.report import write_report

    with ExitStack() as held:
        # Whoever writes last has read last: of several commands that end at once, none leaves an older report.
        with storage(ledger.folder):
            held.enter_context(FileLock(ledger.folder / "report.lock", is_singleton=True))
        _write_live(ledger)
        path = write_report(ledger, ledger.folder / "report", tracking.attempt(lambda sink: sink.links(), Links()))
        if invocation is not None:
            tracking.attempt(lambda sink: sink.publish(invocation, path.parent), None)
    return path


def _write_live(ledger: Ledger) -> None:
    """Write the live page of the report's smallest networks, if there are any; nothing is trained for it."""
    from poolbench.inspect.live_cells import report_scenes
    from poolbench_tracking.live_page import write_live

    try:
        if scenes := report_scenes(ledger):
            write_live(scenes, ledger.folder / "report")
    except UsageError as error:
        say(f"poolbench: the report has no live page: {error}")


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Make SIGTERM raise KeyboardInterrupt, so that it ends a command as Ctrl-C does: all files are closed."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
