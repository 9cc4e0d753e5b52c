"""regress: the regression gate."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from poolbench.cli.baselines import HOW_TO_MAKE, REPEAT, Baseline, judged_frame, known_metrics, read_baseline
from poolbench.cli.options import (
    FAILED,
    NO_DATA,
    OK,
    device_option,
    existing,
    out_option,
    plugin_option,
    say,
    say_left_out,
)
from poolbench.cli.running import jobs_option, open_invocation
from poolbench.cli.work import Tracking, data_dir_option
from poolbench.core import Cell, DataLocation, MissingData, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from poolbench.analysis.gate import Incident, Night
    from poolbench.runner.ledger import Ledger


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
    confirm: bool | None,
    identical: bool,
    power: bool,
    plugins: Sequence[str],
    device: str,
    data_dir: str,
    jobs: int | None,
) -> None:
    """Compare a work folder with a baseline, group by group and seed by seed.

    Writes JUnit XML and Markdown to OUT/regress. Exit codes: 0 fine, 1 regressed, 2 wrong usage, 3 data missing.
    """
    from poolbench.analysis.gate import compare, exit_code, judge, worst_by_group

    if power:
        _print_power(read_baseline(folder), folder)
        sys.exit(OK)
    ledger, baseline = existing(out), read_baseline(folder)
    current = judged_frame(ledger, baseline.results)
    _check_common(baseline, current, folder, out)
    night = compare(baseline.results, current, known_metrics(), baseline.repeat)
    confirming = not identical and (not baseline.reserve.empty if confirm is None else confirm)
    if confirming:
        night = _confirmed(night, baseline, ledger, Machine(device, data_dir, plugins, jobs))
    incidents = worst_by_group(judge(night.incidents, confirming))
    code = _identity_code(incidents) if identical else exit_code(incidents)
    _write(incidents, ledger, code)
    say_left_out(ledger)
    sys.exit(code)


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
    """Run the suspicious groups on the baseline's reserve seeds, in a ledger of their own, and return the night."""
    from poolbench.analysis.gate import confirm
    from poolbench.runner.attempt import Settings
    from poolbench.runner.environment import resolve_device
    from poolbench.runner.execute import execute
    from poolbench.runner.ledger import Ledger
    from poolbench.runner.workers import slots

    cells = _reserve_cells(night, baseline, ledger)
    reserve = Ledger(ledger.folder / "confirmation").create()
    todo = [cell for cell in cells if reserve.result(cell).status != "finished"]
    if cells:
        groups = len({cell.group for cell in cells})
        say(f"{groups} suspicious groups: {len(cells)} cells with reserve seeds, {len(todo)} to run")
    if todo:
        settings = Settings(DataLocation(machine.data_dir), resolve_device(machine.device), plugins=machine.plugins)
        unlogged = Tracking(reserve.folder, None, wanted=False)
        with open_invocation(reserve, unlogged, "reserve", len(todo)) as (invocation, progress):
            devices = slots(settings.device, machine.jobs, 1)[: len(todo)]
            execute(todo, reserve, replace(settings, invocation=invocation.id), progress, devices)
    return confirm(night, baseline.results, judged_frame(reserve, baseline.results), known_metrics())


def _reserve_cells(night: Night, baseline: Baseline, ledger: Ledger) -> list[Cell]:
    """Return the cells of the suspicious groups with the reserve seeds that the baseline has for them."""
    seeds = {str(group): sorted(set(found)) for group, found in baseline.reserve.groupby("group")["seed"]}
    cells = {result.cell.group: result.cell for result in ledger.results()}
    return [
        replace(cells[found.group], seed=int(seed))
        for found in night.incidents
        if found.is_suspicious and found.group in cells
        for seed in seeds.get(found.group, ())
    ]


def _identity_code(incidents: Sequence[Incident]) -> int:
    """Return 1 if any bit changed, else 3 if some group has no bits to compare, else 0."""
    bits = {found.bits for found in incidents}
    if "changed" in bits:
        return FAILED
    return NO_DATA if "unknown" in bits or any(found.missing for found in incidents) else OK


def _write(incidents: Sequence[Incident], ledger: Ledger, code: int) -> None:
    """Write summary.md, junit.xml and verdict.json to the work folder, and print the summary."""
    from poolbench.files import storage, write_atomically
    from poolbench_tracking.gate_report import to_junit, to_markdown

    folder = ledger.folder / "regress"
    summary = to_markdown(incidents)
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "junit.xml", to_junit(incidents).encode())
        write_atomically(folder / "summary.md", summary.encode())
    click.echo(summary, nl=False)


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
