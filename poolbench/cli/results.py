"""report, sync and ui: what a work folder holds."""

from __future__ import annotations

import os
import shlex
import socket
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from poolbench.cli.baselines import judged_frame, known_metrics
from poolbench.cli.options import (
    FAILED,
    existing,
    no_mlflow_option,
    out_option,
    plugin_option,
    say,
    say_left_out,
    uri_option,
)
from poolbench.cli.work import Tracking, write_report
from poolbench.core import UsageError

if TYPE_CHECKING:
    import pandas as pd


@click.command("report")
@plugin_option()
@out_option
@uri_option
@no_mlflow_option
@click.option("--export", is_flag=True, help="Also tables for LaTeX, figures as SVG and PDF, the summary as parquet.")
@click.option(
    "--compare", "sides", nargs=2, metavar="A B",
    help="Instead, set two results side by side: work folders, results.csv files, or commits of a history.",
)  # fmt: skip
@click.option(
    "--history", "history_folder", type=click.Path(path_type=Path), help="Folder of the history that has the commits."
)
def report_command(
    out: Path,
    tracking_uri: str | None,
    no_mlflow: bool,
    export: bool,
    sides: tuple[str, str] | None,
    history_folder: Path | None,
) -> None:
    """Write the report of a work folder: HTML, Markdown and CSV."""
    if sides and export:
        raise UsageError("--export belongs to the report of one work folder; leave it out with --compare")
    if history_folder and not sides:
        raise UsageError("--history belongs to --compare; give the two commits, or leave it out")
    if sides:
        click.echo(str(_compare(sides, history_folder, out)))
        return
    ledger = existing(out)
    path = write_report(ledger, Tracking(out, tracking_uri, wanted=not no_mlflow))
    if export:
        from poolbench_tracking.exports import write_exports

        say(f"{len(write_exports(ledger, path.parent))} files for papers are beside the report")
    say_left_out(ledger)
    click.echo(str(path))


def _compare(sides: tuple[str, str], history_folder: Path | None, out: Path) -> Path:
    from poolbench.analysis.comparison import compare_results
    from poolbench_tracking.comparison_report import write_comparison

    before, after = (_results_of(side, history_folder) for side in sides)
    found = compare_results(before, after, known_metrics())
    if not found.changes:
        raise UsageError(
            f"'{sides[0]}' and '{sides[1]}' have no group with the same seeds in common; nothing to compare"
        )
    return write_comparison(found, sides, out / "report")


def _results_of(side: str, history_folder: Path | None) -> pd.DataFrame:
    """Return the results of a work folder, of a results.csv, or of a commit in the history."""
    if Path(side).is_dir():
        return judged_frame(existing(Path(side)))
    if Path(side).is_file():
        from poolbench.analysis.frames import read_results

        return read_results(side)
    if history_folder is None:
        raise UsageError(f"'{side}' is neither a work folder nor a results.csv; for a commit, give --history FOLDER")
    from poolbench_tracking.history import History

    rows = History(history_folder).read()
    rows = rows[rows["commit"].str.startswith(side)]
    if rows.empty:
        raise UsageError(f"no night of the history in '{history_folder}' ran commit '{side}'")
    if rows["commit"].nunique() > 1:
        found = ", ".join(sorted(rows["commit"].unique()))
        raise UsageError(f"'{side}' is the start of several commits of the history: {found}; give more of it")
    # A commit may have run in several nights: the last one of each group.
    last = rows.groupby(["benchmark", "group"])["night"].transform("max")
    return rows[rows["night"] == last].assign(images=0)


@click.command("sync")
@plugin_option()
@out_option
@uri_option
def sync_command(out: Path, tracking_uri: str | None) -> None:
    """Bring MLflow up to date with the ledger: write what is missing, correct what depends on new results."""
    from poolbench.cli.progress import counting
    from poolbench_tracking.mlflow_sink import MlflowSink, TrackingUnavailable

    ledgers = [existing(out)]
    try:
        with counting("groups in MLflow") as show:
            written = MlflowSink(out, tracking_uri).sync(ledgers, show)
    except TrackingUnavailable as error:
        say(f"poolbench: not all is in MLflow, nothing is lost: {error}")
        sys.exit(FAILED)
    say_left_out(*ledgers)
    say(f"MLflow is up to date; {written} runs of seeds are new")


@click.command("ui")
@out_option
@uri_option
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port on 127.0.0.1.")
def ui_command(out: Path, tracking_uri: str | None, port: int) -> None:
    """Print a link per task into the MLflow UI, and serve it on 127.0.0.1 unless the store is a server's."""
    from poolbench_tracking.mlflow_sink import MlflowSink, TrackingUnavailable, default_uri
    from poolbench_tracking.mlflow_store import is_server

    existing(out)
    uri = tracking_uri or default_uri(out)
    if uri == default_uri(out) and not (out / "mlflow.db").exists():
        raise UsageError(f"'{out}' has no MLflow store yet; run 'poolbench sync --out {out}' first")
    local = f"http://127.0.0.1:{port}"
    try:
        sink = MlflowSink(out, uri)
        links = sink.views(sink.store.address if is_server(uri) else local)
    except TrackingUnavailable as error:
        say(f"poolbench: no links into MLflow: {error}")
        sys.exit(FAILED)
    if not links:
        raise UsageError(f"the store has no runs of poolbench; run 'poolbench sync --out {out}' with it first")
    if not is_server(uri):
        _check_free(port)
    for name, link in links.items():
        click.echo(f"{name}: {link}")
    if not is_server(uri):
        _serve(uri, port)


def _check_free(port: int) -> None:
    """Raise UsageError if another program listens on the port: the links would lead to it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UsageError(f"port {port} is in use ({error.strerror}); choose another with --port") from error


def _serve(uri: str, port: int) -> NoReturn:
    """Become the MLflow server of a store on 127.0.0.1."""
    say(f"MLflow UI: http://127.0.0.1:{port}, for this machine only (Ctrl-C ends it)")
    sys.stdout.flush()
    # One worker and no job runner: the store is a local file, and both cost gigabytes.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    # Not as an argument, which others see in the list of processes: it may hold a password.
    os.environ["MLFLOW_BACKEND_STORE_URI"] = uri
    # Neither Python nor uvicorn may look for modules in the current folder, which may be a stranger's.
    os.environ["PYTHONSAFEPATH"] = "1"
    places = shlex.join(["--app-dir", sysconfig.get_path("purelib")])
    arguments = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--uvicorn-opts", places]
    os.execv(sys.executable, [sys.executable, "-P", "-m", "mlflow", *arguments])
