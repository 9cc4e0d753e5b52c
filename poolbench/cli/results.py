"""status, report, sync and ui: what a work folder holds."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

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
from poolbench.core import Status, UsageError


@click.command("status")
@plugin_option()
@out_option
def status_command(out: Path) -> None:
    """Count the cells of a work folder by benchmark and status, and say why some failed."""
    ledger = existing(out)
    results = ledger.results()
    statuses: tuple[Status, ...] = ("finished", "running", "failed", "skipped", "pending")
    click.echo(f"{'benchmark':<20}" + "".join(f"{status:>10}" for status in statuses))
    for name in dict.fromkeys(result.cell.benchmark for result in results):
        found = [result.status for result in results if result.cell.benchmark == name]
        click.echo(f"{name:<20}" + "".join(f"{found.count(status):>10}" for status in statuses))
    for result in results:
        if result.status in ("failed", "skipped"):
            click.echo(f"{result.status}: {result.cell.label}: {result.reason.splitlines()[0]}")
    say_left_out(ledger)


@click.command("report")
@plugin_option()
@out_option
@uri_option
@no_mlflow_option
@click.option("--export", is_flag=True, help="Also tables for LaTeX, figures as SVG and PDF, the summary as parquet.")
def report_command(out: Path, tracking_uri: str | None, no_mlflow: bool, export: bool) -> None:
    """Write the report of a work folder: HTML, Markdown and CSV."""
    ledger = existing(out)
    path = write_report(ledger, Tracking(out, tracking_uri, wanted=not no_mlflow))
    if export:
        from poolbench_tracking.exports import write_exports

        say(f"{len(write_exports(ledger, path.parent))} files for papers are beside the report")
    say_left_out(ledger)
    click.echo(str(path))


@click.command("sync")
@plugin_option()
@out_option
@uri_option
def sync_command(out: Path, tracking_uri: str | None) -> None:
    """Write the MLflow runs that are missing; existing ones are not changed."""
    from poolbench.tune import tuning_ledgers
    from poolbench_tracking.mlflow_sink import MlflowSink, TrackingUnavailable

    ledgers = [existing(out), *tuning_ledgers(out)]
    try:
        written = MlflowSink(out, tracking_uri).sync(ledgers)
    except TrackingUnavailable as error:
        say(f"poolbench: MLflow cannot be reached, nothing is lost: {error}")
        sys.exit(FAILED)
    say_left_out(*ledgers)
    say(f"{written} runs written")


@click.command("ui")
@out_option
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port on 127.0.0.1.")
def ui_command(out: Path, port: int) -> None:
    """Open the MLflow UI of a work folder on 127.0.0.1."""
    from poolbench_tracking.mlflow_sink import default_uri

    existing(out)
    if not (out / "mlflow.db").exists():
        raise UsageError(f"'{out}' has no MLflow store yet; run 'poolbench sync --out {out}' first")
    # One worker and no job runner: the store is a local file, and both cost gigabytes.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    arguments = ["server", "--backend-store-uri", default_uri(out), "--host", "127.0.0.1", "--port", str(port)]
    say(f"MLflow UI: http://127.0.0.1:{port} (Ctrl-C ends it)")
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", *arguments, "--workers", "1"])
