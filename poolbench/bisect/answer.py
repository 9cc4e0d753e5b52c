"""From the results of two commits to the first commit between them that moves a group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from poolbench.analysis.frames import varying_fields
from poolbench.analysis.matching import Match, matched_groups
from poolbench.bisect.checkout import Commit
from poolbench.bisect.runs import Unusable
from poolbench.bisect.search import Verdict, first_bad
from poolbench.core import UsageError
from poolbench.runner.plan import Selection


@dataclass(frozen=True)
class Moved:
    """A metric of a group that differs by more than chance: its means before and after."""

    benchmark: str
    group: str
    label: str
    metric: str
    before: float
    after: float

    @property
    def rises(self) -> bool:
        return self.after > self.before


@dataclass(frozen=True)
class Answer:
    """What a bisect found: ``moved`` at the last of the ``candidates``, ``later`` only after it, until BAD.

    Without candidates, nothing moved between GOOD and BAD. ``groups`` counts the groups compared, ``tested`` the
    commits whose cells were run, GOOD and BAD included.
    """

    candidates: Sequence[Commit]
    moved: Sequence[Moved]
    later: Sequence[Moved]
    groups: int
    tested: int


Results = Callable[[Commit, Selection], pd.DataFrame]
"""Results frame of the selected cells at a commit; raises Unusable."""
Judge = Callable[[pd.DataFrame, pd.DataFrame], Sequence[Moved]]
"""What moved from the first results frame to the second, whose groups have the ids of the first."""


def bisect(
    good: Commit,
    path: Sequence[Commit],
    selection: Selection,
    results: Results,
    judge: Judge,
    say: Callable[[str], None],
) -> Answer:
    """Find the first commit of ``path`` at which something moved that differs between ``good`` and the last one.

    Between the ends, only the groups that moved are run, as far as names and conditions can select them. A commit
    without results of them is passed over. Raises UsageError if an end has no results, or none in common.
    """
    bad = path[-1]
    before = _end("GOOD", good, selection, results, say)
    after = _end("BAD", bad, selection, results, say)
    match = matched_groups(before, after)
    _say_left_out(match, say)
    groups = match.frame["group"].unique()
    if not len(groups):
        raise UsageError(f"GOOD {good.short} and BAD {bad.short} have no group in common; choose closer commits")
    before = before[before["group"].isin(groups)]
    moved = judge(before, match.frame)
    if not moved:
        return Answer((), (), (), len(groups), 2)
    say(f"{len({move.group for move in moved})} of {len(groups)} groups moved, {len(path) - 1} commits between")
    selection = narrowed(selection, before, after, moved)
    before = before[before["group"].isin({move.group for move in moved})]
    found: dict[Commit, Sequence[Moved]] = {bad: moved}

    def test(commit: Commit) -> Verdict:
        say(f"testing {commit}")
        try:
            found[commit] = _moved_again(moved, before, results(commit, selection), judge)
        except Unusable as reason:
            say(f"{commit.short} is passed over: {reason}")
            return Verdict.UNUSABLE
        say(f"{commit.short} is {'bad' if found[commit] else 'good'}")
        return Verdict.BAD if found[commit] else Verdict.GOOD

    answer = first_bad(path, test)
    here = found[answer.candidates[-1]]
    keys = {_key(move) for move in here}
    later = [move for move in moved if _key(move) not in keys]
    return Answer(answer.candidates, here, later, len(groups), answer.tested + 2)


def _end(name: str, commit: Commit, selection: Selection, results: Results, say: Callable[[str], None]) -> pd.DataFrame:
    say(f"testing {name} {commit}")
    try:
        return results(commit, selection)
    except Unusable as reason:
        raise UsageError(
            f"{name} {commit.short} gives no results: {reason}; choose another commit or other cells"
        ) from reason


def _say_left_out(match: Match, say: Callable[[str], None]) -> None:
    if match.missing:
        say(f"left out: {len(match.missing)} groups that BAD does not have")
    if match.ambiguous:
        say(f"left out: {len(match.ambiguous)} groups that match several of the other side, told apart by a new field")


def _moved_again(moved: Sequence[Moved], before: pd.DataFrame, results: pd.DataFrame, judge: Judge) -> Sequence[Moved]:
    """Return those of the moves that a commit shows, too; raise Unusable if it shows none and lacks one.

    A move in the other direction is another change.
    """
    current = matched_groups(before, results).frame
    here = {_key(move): move for move in judge(before, current)}
    again = [here[_key(move)] for move in moved if _key(move) in here and here[_key(move)].rises == move.rises]
    lacking = {_key(move) for move in moved} & _measured(before) - _measured(current)
    if not again and lacking:
        raise Unusable(f"it lacks {len(lacking)} of the {len(moved)} numbers that moved")
    return again


def _key(move: Moved) -> tuple[str, str]:
    return move.group, move.metric


def _measured(frame: pd.DataFrame) -> set[tuple[str, str]]:
    """Return the pairs of group and metric that have a value."""
    return set(zip(frame["group"], frame["metric"], strict=True))


def narrowed(selection: Selection, before: pd.DataFrame, after: pd.DataFrame, moved: Sequence[Moved]) -> Selection:
    """Return the part of a selection with the groups that moved: their benchmarks, and the fields they agree in.

    Other groups stay where the moved ones differ. A field that only one side has is no condition: a commit in
    between may not know it.
    """
    rows = before[before["group"].isin({move.group for move in moved})]
    where = dict(selection.where)
    for name in varying_fields(before):
        values = rows[name].unique()
        if len(values) == 1 and pd.notna(values[0]) and name in after.columns:
            where[name] = _written(values[0])
    return replace(selection, names=tuple(rows["benchmark"].unique()), where=where)


def _written(value: Any) -> str:
    """Return a value as --where takes it: in a CSV column with gaps, the integer 3 is 3.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
