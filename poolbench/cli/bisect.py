"""bisect: find the first commit that moves results."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from poolbench.cli.baselines import known_metrics
from poolbench.cli.options import (
    data_dir_option,
    device_option,
    jobs_option,
    out_option,
    plugin_option,
    say,
    selection_options,
    tell,
)
from poolbench.cli.work import sigterm_interrupts
from poolbench.core import UsageError
from poolbench.runner.plan import Selection

if TYPE_CHECKING:
    import pandas as pd

    from poolbench.bisect.answer import Answer, Moved

NOT_REPRODUCIBLE = 3


@click.command("bisect")
@click.argument("good")
@click.argument("bad")
@click.argument("names", nargs=-1)
@selection_options
@plugin_option(pass_on=True)
@click.option(
    "--repo",
    type=click.Path(path_type=Path),
    default=Path("."),
    show_default=True,
    help="Git checkout of poolbench with the commits.",
)
@out_option
@device_option
@data_dir_option
@jobs_option
def bisect_command(
    good: str,
    bad: str,
    selection: Selection,
    plugins: Sequence[str],
    repo: Path,
    out: Path,
    device: str,
    data_dir: str,
    jobs: int | None,
) -> None:
    """Find the first commit after GOOD, up to BAD, that moves the results of benchmarks (names; default: all).

    Each commit runs the cells with its own code, into OUT/bisect/<commit>. The same command continues.
    Exit codes: 0 found, 2 wrong usage, 3 GOOD and BAD do not differ, 130 interrupted.
    """
    from poolbench.bisect.answer import bisect
    from poolbench.bisect.checkout import Checkout
    from poolbench.bisect.runs import Runs, opened

    checkout = Checkout(repo)
    first = checkout.commit(good)
    path = checkout.path(first, checkout.commit(bad))
    selection = replace(selection, names=selection.names or ("all",))
    options = ["--device", device, "--data-dir", data_dir, *(["--jobs", str(jobs)] if jobs else [])]
    with sigterm_interrupts(), opened(checkout, out) as folder:
        runs = Runs(checkout, folder, plugins, options, say)
        answer = bisect(first, path, selection, runs.results, moved, say)
    if not answer.candidates:
        tell(
            "not reproducible: GOOD and BAD do not differ by more than chance "
            f"({answer.groups} {'group' if answer.groups == 1 else 'groups'} compared)"
        )
        sys.exit(NOT_REPRODUCIBLE)
    _show(answer, len(path) + 1)


def moved(before: pd.DataFrame, after: pd.DataFrame) -> list[Moved]:
    """Return the gated metrics of the groups that the gate calls regressed or improved; equal values have not moved.

    Raises UsageError for a benchmark whose metrics this version does not know.
    """
    from poolbench.analysis.gate import compare
    from poolbench.analysis.incidents import judge
    from poolbench.analysis.matching import equal_groups
    from poolbench.bisect.answer import Moved

    metrics = known_metrics()
    if unknown := sorted(set(before["benchmark"]) - metrics.keys()):
        raise UsageError(f"this version does not know the benchmark {', '.join(unknown)}; bisect with a newer one")
    equal = equal_groups(before, after)
    before = before[~before["group"].isin(equal)]
    # Counted anew: to the gate, seeds from 1000 on are no part of a night.
    seeds = {seed: number for number, seed in enumerate(sorted({*before["seed"], *after["seed"]}))}
    before, after = (frame.assign(seed=frame["seed"].map(seeds)) for frame in (before, after))
    return [
        Moved(found.benchmark, found.group, found.label, c.metric.name, c.before, c.after)
        for found in judge(compare(before, after, metrics).incidents)
        if found.verdict in ("regressed", "improved")
        for c in [*found.fallen, *found.risen]
    ]


def _show(answer: Answer, commits: int) -> None:
    """Print the commits that may be the first bad one, what moved there, and how many commits were tested."""
    count = len(answer.candidates)
    tell("first bad commit:" if count == 1 else f"the first bad commit is one of {count}, only the last one ran:")
    for commit in answer.candidates:
        tell(f"  {commit.hash} {commit.date} {commit.author}: {commit.subject}")
    for title, moves in (("moved:", answer.moved), ("moved by a later commit:", answer.later)):
        if moves:
            tell(title)
        for move in moves:
            tell(f"  {move.benchmark} {move.label} {move.metric}: {move.before:.4g} -> {move.after:.4g}")
    tell(f"{answer.tested} of {commits} commits tested, GOOD and BAD included")
