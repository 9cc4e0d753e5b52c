"""Matching of groups between two versions by configuration, and groups with equal values."""

from __future__ import annotations

from collections.abc import Callable
from math import nextafter
from pathlib import Path

import pandas as pd

from poolbench.analysis.frames import read_results, results_frame
from poolbench.analysis.matching import equal_groups, matched_groups
from poolbench.core import Result

Finished = Callable[..., Result]


def through_csv(results: list[Result], folder: Path) -> pd.DataFrame:
    results_frame(results).to_csv(folder / "results.csv", index=False)
    return read_results(str(folder / "results.csv"))


def test_a_new_field_changes_the_ids_and_not_the_match(finished: Finished, tmp_path: Path) -> None:
    before = [finished(pool, seed, 0.5, model={"width": 8}) for pool in ("max", "avg") for seed in (0, 1)]
    # The gap in the other benchmark's column makes the widths of the CSV file floats.
    after = [finished(pool, seed, 0.5, model={"width": 8, "bias": True}) for pool in ("max", "avg") for seed in (0, 1)]
    other = finished("max", 0, 0.5, benchmark="other", architecture="plain", model={})
    match = matched_groups(through_csv(before, tmp_path), through_csv([*after, other], tmp_path))
    assert (match.missing, match.ambiguous) == ([], [])
    groups = {(row.pool, row.seed): row.group for row in match.frame.itertuples()}
    assert groups == {(result.cell.pool.name, result.cell.seed): result.cell.group for result in before}


def test_options_tell_groups_apart_booleans_words_and_absent_ones_too(finished: Finished, tmp_path: Path) -> None:
    variants = [{"mode": "3", "on": True}, {"mode": "soft", "on": True}, {"mode": "soft", "on": False}, {"on": None}]
    results = [finished("mixed", 0, 0.5, pool_options=options) for options in variants]
    numbers = [finished("mixed", 0, 0.5, pool_options={"mode": 3, "on": True})]
    frame = through_csv(results, tmp_path)
    same = matched_groups(frame, frame)
    assert same.frame.equals(frame)
    # Alone, the words of the column are read as numbers.
    assert set(matched_groups(frame, through_csv(numbers, tmp_path)).frame["group"]) == {results[0].cell.group}


def test_an_option_that_another_pool_had_before_is_a_new_one(finished: Finished) -> None:
    gem = finished("gem", 0, 0.5, pool_options={"p": 3.0})
    before = [gem, finished("mean", 0, 0.5)]
    after = [gem, finished("mean", 0, 0.5, pool_options={"p": 1.0})]
    match = matched_groups(results_frame(before), results_frame(after))
    assert set(match.frame["group"]) == {result.cell.group for result in before}


def test_missing_and_ambiguous_groups_are_named(finished: Finished) -> None:
    before = [finished(pool, 0, 0.5) for pool in ("max", "avg", "aps")]
    after = [before[0], *(finished("avg", 0, 0.5, pool_options={"p": p}) for p in (1.0, 2.0))]
    match = matched_groups(results_frame(before), results_frame(after))
    assert set(match.frame["group"]) == {before[0].cell.group}
    assert list(match.ambiguous) == [before[1].cell.group]
    assert list(match.missing) == [before[2].cell.group]
    back = matched_groups(results_frame(after), results_frame(before))
    assert set(back.ambiguous) == {result.cell.group for result in after[1:]}
    assert matched_groups(results_frame(before), results_frame([])).frame.empty


def test_groups_are_equal_if_all_but_their_costs_are(finished: Finished) -> None:
    before = results_frame([finished(pool, 0, 0.5, metrics={"cost_forward_ms": 1.0}) for pool in ("max", "avg", "aps")])
    after = before.copy()
    after.loc[after["metric"] == "cost_forward_ms", "value"] = 2.0
    assert equal_groups(before, after) == set(before["group"])
    changed = (after["pool"] == "avg") & (after["metric"] == "loss")
    after.loc[changed, "value"] = nextafter(0.5, 1)
    assert equal_groups(before, after[after["pool"] != "aps"]) == set(before.loc[before["pool"] == "max", "group"])
