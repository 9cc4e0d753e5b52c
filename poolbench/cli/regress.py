"""regress: the regression gate."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from poolbench.cli.baselines import HOW_TO_MAKE, REPEAT, Baseline, finished, judged_frame, known_metrics, read_baseline
from poolbench.cli.options import (
    OK,
    data_dir_option,
    device_option,
    existing,
    jobs_option,
    out_option,
    plugin_option,
    say,
    say_left_out,
    tell,
)
from poolbench.cli.running import open_invocation
from poolbench.cli.work import Tracking
from poolbench.core import Cell, DataLocation, MissingData, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from poolbench.analysis.gate import Night
    from poolbench.analysis.incidents import Incident
    from poolbench.runner.ledger import Ledger
    from poolbench_tracking.history import History


VERDICT = "verdict.json"


@dataclass(frozen=True)
class Machine:
    """Where the cells of a confirmation run."""

    device: str
    data_dir: str
    plugins: Sequence[str]
    jobs: int | None


@click.command("regress")
@out_option
@click.option(
    "--baseline",
    "folder",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder with the results.csv to compare with, and a repeat.csv if there is one.",
)
@click.option(
    "--history",
    "history_folder",
    type=click.Path(path_type=Path),
    help="Folder with the history of nights: compare with the last good ones, too, and append this one.",
)
@click.option(
    "--window", type=click.IntRange(min=1), default=5, show_default=True, help="Number of good nights to compare with."
)
@click.option(
    "--confirm/--no-confirm",
    default=None,
    help="Run suspicious groups again on the baseline's reserve seeds (default: if it has some).",
)
@click.option("--identical", is_flag=True, help="Fail if any bit changed: for changes that must not change results.")
@click.option("--power", is_flag=True, help="Print the drops that the gate can see, and compare nothing.")
@plugin_option(pass_on=True)
@device_option
@data_dir_option
@jobs_option
def regress_command(
    out: Path,
    folder: Path,
    history_folder: Path | None,
    window: int,
    confirm: bool | None,
    identical: bool,
    power: bool,
    plugins: Sequence[str],
    device: str,
    data_dir: str,
    jobs: int | None,
) -> None:
    """Compare a work folder with a baseline, group by group and seed by seed.

    Writes summary.md, junit.xml and verdict.json to OUT/regress, with a history also history.html. Exit codes: 0 fine,
    1 regressed, 2 wrong usage, 3 data missing.
    """
    from poolbench.analysis.gate import compare
    from poolbench.analysis.incidents import exit_code, judge, judge_bits, worst_by_group
    from poolbench.files import storage
    from poolbench_tracking.history import History

    if power:
        _print_power(read_baseline(folder), folder)
        sys.exit(OK)
    ledger = existing(out)
    # A verdict of before must not pass for that of a comparison that fails.
    with storage(out):
        (out / "regress" / VERDICT).unlink(missing_ok=True)
    baseline = read_baseline(folder)
    if confirm and baseline.reserve.empty:
        raise UsageError(f"'{folder}' has no reserve seeds to confirm on; leave out --confirm, or see docs/nightly.md")
    current = judged_frame(ledger, baseline.results)
    _check_common(baseline, current, folder, out)
    night = compare(baseline.results, current, known_metrics(), baseline.repeat)
    # Made now: that it cannot be is no news for after a confirmation, which takes long.
    history = History(history_folder).create() if history_folder else None
    if identical:
        incidents = judge_bits(night.incidents)
    else:
        recent = _recent(history, window, baseline, current, night, ledger) if history else []
        confirming = not baseline.reserve.empty if confirm is None else confirm
        if confirming:
            night = _confirmed(night, baseline, ledger, Machine(device, data_dir, plugins, jobs))
        incidents = worst_by_group(judge([*night.incidents, *recent], confirming))
    _write(incidents, ledger, current, history)
    say_left_out(ledger)
    sys.exit(exit_code(incidents))


def _recent(
    history: History, window: int, baseline: Baseline, current: pd.DataFrame, night: Night, ledger: Ledger
) -> Sequence[Incident]:
    """Return the comparison with the last good nights between the baseline and this one, if there are any.

    Only groups of the baseline that do not have its bits are compared, and only seeds of the night: what is missing is
    said by the comparison with the baseline, which does not forget. Whoever accepted the baseline has accepted that its
    level is another one than before.
    """
    from poolbench.analysis.gate import compare
    from poolbench.analysis.history import window_reference
    from poolbench_tracking.history import night_of

    rows = history.read()
    earlier = rows[(rows["night"] < night_of(finished(ledger))) & (rows["night"] >= baseline.accepted)]
    moved = {found.group for found in night.incidents if found.bits != "same"}
    recent = window_reference(earlier, window).merge(current[["group", "seed"]].drop_duplicates())
    recent = recent[recent["group"].isin(moved)]
    if recent.empty:
        return []
    night = compare(recent, current, known_metrics(), baseline.repeat, reference="the last good nights")
    return [replace(found, missing="") for found in night.incidents]


def _check_common(baseline: Baseline, current: pd.DataFrame, folder: Path, out: Path) -> None:
    """Raise MissingData if the night has no cell, or no group of the baseline."""
    if current.empty:
        raise MissingData(f"'{out}' has no finished cell; 'poolbench status --out {out}' says why")
    groups = set(baseline.results["group"])
    if not groups & set(current["group"]):
        raise MissingData(
            f"none of the {len(groups)} groups of the baseline '{folder}' is in '{out}': it has other cells, or the "
            f"baseline is of another version; run the cells of the baseline, or {HOW_TO_MAKE}"
        )


def _confirmed(night: Night, baseline: Baseline, ledger: Ledger, machine: Machine) -> Night:
    """Run the suspicious groups on the baseline's reserve seeds, in a ledger of their own; return the night."""
    from poolbench.analysis.gate import confirm
    from poolbench.runner.attempt import Settings
    from poolbench.runner.cell import replica_groups
    from poolbench.runner.environment import resolve_device
    from poolbench.runner.execute import execute
    from poolbench.runner.ledger import Ledger
    from poolbench.runner.workers import slots

    suspicious = {found.group for found in night.incidents if found.is_suspicious}
    cells = _reserve_cells(suspicious, baseline, ledger)
    reserve = Ledger(ledger.folder / "confirmation").create()
    todo = [cell for cell in cells if reserve.result(cell).status != "finished"]
    if cells:
        groups = len({cell.group for cell in cells})
        say(f"{groups} suspicious groups: {len(cells)} cells with reserve seeds, {len(todo)} to run")
    if todo:
        settings = Settings(DataLocation(machine.data_dir), resolve_device(machine.device), plugins=machine.plugins)
        untracked = Tracking(reserve.folder, None, wanted=False)
        devices = slots(settings.device, machine.jobs, 1)[: len(todo)]
        with open_invocation(reserve, untracked, "reserve", len(devices)) as (invocation, progress):
            progress.expect(replica_groups(todo, settings))
            execute(todo, reserve, replace(settings, invocation=invocation.id), progress, devices)
    return confirm(night, baseline.results, judged_frame(reserve, baseline.results), known_metrics())


def _reserve_cells(groups: Collection[str], baseline: Baseline, ledger: Ledger) -> list[Cell]:
    """Return the cells of these groups with the reserve seeds that the baseline has for them."""
    cells = {result.cell.group: result.cell for result in ledger.results()}
    wanted = baseline.reserve[["group", "seed"]].drop_duplicates()
    return [
        replace(cells[group], seed=int(seed))
        for group, seed in zip(wanted["group"], wanted["seed"], strict=True)
        if group in groups and group in cells
    ]


def _write(incidents: Sequence[Incident], ledger: Ledger, current: pd.DataFrame, history: History | None) -> None:
    """Append the night to the history, write the files of OUT/regress, and print the summary."""
    from poolbench.analysis.history import trends
    from poolbench.analysis.incidents import exit_code
    from poolbench.files import storage, text_bytes, write_atomically, write_json
    from poolbench.runner.environment import git_commit
    from poolbench_tracking.gate_report import to_junit, to_markdown
    from poolbench_tracking.history import night_of, night_rows
    from poolbench_tracking.history_report import to_html
    from poolbench_tracking.history_report import to_markdown as history_section

    results = finished(ledger)
    verdict = {
        "exit_code": exit_code(incidents),
        "night": night_of(results),
        "commit": git_commit(),
        "regressed": [f"{found.benchmark} {found.label}" for found in incidents if found.verdict == "regressed"],
    }
    files = {"junit.xml": to_junit(incidents), "summary.md": to_markdown(incidents)}
    if new := len(set(current["group"]) - {found.group for found in incidents}):
        files["summary.md"] += f"\n{new} groups of the night are not in the baseline.\n"
    if history:
        history.append(night_rows(results, current, incidents))
        gated = {name: [m for m in metrics if m.gated] for name, metrics in known_metrics().items()}
        series = trends(history.read(), gated)
        files["summary.md"] += "\n" + history_section(series)
        files["history.html"] = to_html(series)
    folder = ledger.folder / "regress"
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_atomically(folder / name, text_bytes(text))
        write_json(folder / VERDICT, verdict)
    tell(files["summary.md"])


def _print_power(baseline: Baseline, folder: Path) -> None:
    """Print a table of the smallest drops that are seen; raise UsageError for a baseline without a repetition."""
    from poolbench.analysis.power import power_table
    from poolbench_tracking.gate_report import power_to_markdown

    if baseline.repeat is None:
        raise UsageError(
            f"'{folder}' has no {REPEAT}, from which the deviations are known: run the baseline's cells in another "
            "environment and give their work folder to 'poolbench baseline accept --repeat' (docs/nightly.md)"
        )
    click.echo(power_to_markdown(power_table(baseline.results, baseline.repeat, known_metrics())), nl=False)
