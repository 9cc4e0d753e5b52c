"""baseline: the reference results of the regression gate; and how the gate reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from poolbench.cli.options import existing, out_option, plugin_option, say, say_left_out
from poolbench.core import Metric, MissingData, Result, UsageError
from poolbench.registry import benchmarks

if TYPE_CHECKING:
    import pandas as pd

    from poolbench.analysis.incidents import Incident
    from poolbench.runner.ledger import Ledger

RESULTS, REPEAT = "results.csv", "repeat.csv"
HOW_TO_MAKE = "make one with 'poolbench baseline accept' (docs/nightly.md)"


@dataclass(frozen=True)
class Baseline:
    """Reference results (a results frame), and the same cells run again in another environment, if there are any.

    ``accepted`` is the UTC time, in ISO format, at which the last accepted results were finished, "" if unknown.
    """

    results: pd.DataFrame
    repeat: pd.DataFrame | None
    accepted: str = ""

    @property
    def reserve(self) -> pd.DataFrame:
        """The rows of reserve seeds."""
        from poolbench.core import FIRST_RESERVE_SEED

        return self.results[self.results["seed"] >= FIRST_RESERVE_SEED]


def read_baseline(folder: Path) -> Baseline:
    """Return the baseline of a folder.

    Raises UsageError for files that are damaged or of another version, MissingData for a table without results.
    """
    from poolbench.analysis.frames import ACCEPTED, read_results

    results = read_results(str(folder / RESULTS))
    if results.empty:
        raise MissingData(f"the baseline '{folder / RESULTS}' has no results; {HOW_TO_MAKE}")
    accepted = results.pop(ACCEPTED).iloc[0] if ACCEPTED in results else ""
    again = folder / REPEAT
    return Baseline(results, read_results(str(again)) if again.exists() else None, str(accepted))


def known_metrics() -> dict[str, Sequence[Metric]]:
    """Return the metrics of each registered benchmark."""
    return {name: benchmarks.get(name)().metrics for name in benchmarks.names()}


def judged_frame(ledger: Ledger, reference: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the results frame of a ledger, with the best accuracies of ``reference`` deciding who has learned."""
    from poolbench.analysis.frames import results_frame
    from poolbench.analysis.learning import best_accuracies, judged

    best = None if reference is None else best_accuracies(reference)
    return results_frame(judged(ledger.results(), best))


def finished(ledger: Ledger) -> list[Result]:
    """Return the results of the finished cells of a ledger."""
    return [result for result in ledger.results() if result.status == "finished"]


@click.group("baseline")
def baseline_group() -> None:
    """Make and renew the reference results of the regression gate."""


@baseline_group.command("accept")
@click.argument("folder", type=click.Path(path_type=Path))
@plugin_option()
@out_option
@click.option(
    "--repeat", "again", type=click.Path(path_type=Path),
    help="Work folder with the same cells, run in another environment (docs/nightly.md).",
)  # fmt: skip
def accept_command(folder: Path, out: Path, again: Path | None) -> None:
    """Take the results of a work folder as the new reference in FOLDER, and say what changes.

    Reserve seeds and the repetition of groups that did not move are kept from the old reference.
    """
    from poolbench.analysis.frames import ACCEPTED
    from poolbench.files import storage, write_atomically
    from poolbench_tracking.history import night_of

    ledger = existing(out)
    results = judged_frame(ledger)
    if results.empty:
        raise MissingData(f"'{out}' has no finished cell; give the --out of a run")
    repeat = None if again is None else judged_frame(existing(again), results)
    if repeat is not None:
        _check_environments(results, repeat, again)
    old = _existing_baseline(folder)
    if old is not None:
        unmoved = _say_changes(old, judged_frame(ledger, old.results))
        results = _with_kept(results, old.reserve[old.reserve["group"].isin(unmoved)])
        kept = old.repeat[old.repeat["group"].isin(unmoved)] if old.repeat is not None else None
        repeat = kept if repeat is None else repeat if kept is None else _with_kept(repeat, kept)
    accepted = results.assign(**{ACCEPTED: night_of(finished(ledger))})
    with storage(folder, "the argument FOLDER"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in ((REPEAT, repeat), (RESULTS, accepted)):
            if frame is not None and not frame.empty:
                write_atomically(folder / name, frame.to_csv(index=False).encode())
            else:
                (folder / name).unlink(missing_ok=True)
    _say_lacks(Baseline(results, repeat))
    say_left_out(ledger)
    click.echo(str(folder / RESULTS))


def _existing_baseline(folder: Path) -> Baseline | None:
    """Return the baseline of a folder, None if it has none or an empty one; a damaged one raises UsageError."""
    try:
        return read_baseline(folder) if (folder / RESULTS).exists() else None
    except MissingData:
        return None


def _check_environments(results: pd.DataFrame, repeat: pd.DataFrame, again: Path | None) -> None:
    """Raise UsageError if a cell was repeated where it ran before: its differences would show nothing."""
    known = set(results["fingerprint"]) - {""}
    if known & set(repeat["fingerprint"]):
        raise UsageError(
            f"'{again}' ran in the same environment, where nothing differs; run it with other CPU kernels, versions or "
            "on another machine (docs/nightly.md)"
        )


def _with_kept(new: pd.DataFrame, kept: pd.DataFrame) -> pd.DataFrame:
    """Return the new rows, and of the kept ones those of cells that are not among them."""
    import pandas as pd

    return pd.concat([new, kept[~kept["cell"].isin(new["cell"])]], ignore_index=True)


def _say_changes(old: Baseline, new: pd.DataFrame) -> set[str]:
    """Say which groups are new, gone or moved; return those that did not move."""
    from poolbench.analysis.gate import compare
    from poolbench.analysis.incidents import judge
    from poolbench_tracking.gate_report import explain

    incidents = judge(compare(old.results, new, known_metrics(), old.repeat).incidents)
    before, after = set(old.results["group"]), set(new["group"])
    say(f"{len(after - before)} groups are new, {len(before - after)} are gone, {len(before & after)} are in both:")
    moved = [found for found in incidents if found.verdict in ("regressed", "improved")]
    for found in [*moved, *(found for found in incidents if found.verdict == "no data")]:
        say(f"  {found.verdict}: {found.benchmark} {found.label}: {explain(found)}")
    changed = _changed(incidents)
    say(f"  {len(moved)} moved, {changed} others changed bits")
    return (before & after) - {found.group for found in moved}


def _changed(incidents: Sequence[Incident]) -> int:
    return sum(found.bits == "changed" and found.verdict not in ("regressed", "improved") for found in incidents)


def _say_lacks(baseline: Baseline) -> None:
    """Say what the gate lacks: reserve seeds, and what deviations are known from."""
    from poolbench.analysis.gate import LEAST_RESERVE

    seeds = baseline.reserve.groupby("group")["seed"].nunique()
    reserve = set(seeds[seeds >= LEAST_RESERVE].index)
    repeated = set() if baseline.repeat is None else set(baseline.repeat["group"])
    groups = set(baseline.results["group"])
    if without := len(groups - reserve):
        lacks = f"have fewer than {LEAST_RESERVE} reserve seeds"
        say(f"{without} groups {lacks}, so alarms are not confirmed: run --seeds 1000-1009, accept again")
    if without := len(groups - repeated):
        say(f"{without} groups were not repeated in another environment, so --power leaves them out")
