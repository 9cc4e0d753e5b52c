"""Comparison tables and their winners, on planted numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import sqrt

import numpy as np
import pandas as pd

from poolbench.analysis.groups import groups_of
from poolbench.analysis.images import ImageValues
from poolbench.analysis.statistics import anytime_reach
from poolbench.analysis.tables import comparison_tables, first_place
from poolbench.core import Metric, Result

Finished = Callable[..., Result]
ACCURACY = Metric("accuracy", "accuracy", True, 0.01)
SPREAD = Metric("spread", "spread", False, 0.1, unit="logit")
METRICS = (ACCURACY, Metric("loss", "loss", False, 0.01), SPREAD, Metric("hidden", "hidden", True, headline=False))


def all_of(finished: Finished, accuracies: Mapping[str, Sequence[float]]) -> list[Result]:
    """Make results from {pool: accuracies of seeds 0, 1, ...}."""
    return [finished(pool, seed, value) for pool, values in accuracies.items() for seed, value in enumerate(values)]


def first(results: Sequence[Result], metric: Metric = ACCURACY) -> tuple[str | None, set[str]]:
    """Return the pools of the best group and of those that tie."""
    groups = groups_of(results)
    found, pools = first_place(groups, metric), {group.id: str(group.fields["pool"]) for group in groups}
    return pools.get(found.best or ""), {pools[name] for name in found.tied}


def best(results: Sequence[Result], metric: Metric = ACCURACY) -> str | None:
    return first(results, metric)[0]


def test_bold_beats_every_rival_whatever_their_number(finished: Finished) -> None:
    # Differences in steps of .025 around .1: five seeds reach 5.41 standard errors of .707 steps, .0957. At 2.5 %, a
    # correction for two rivals, it would be 6.95 standard errors, .1229.
    base, ahead = [0.5] * 5, [0.6 + 0.025 * place for place in (-2, -1, 0, 1, 2)]
    results = all_of(finished, {"max": ahead, "avg": base})
    assert first(results) == ("max", set())
    assert first([*results, *all_of(finished, {"blur": base})]) == ("max", set())
    # Steps of .027 reach .1034. The leader and the group it does not beat tie, the others do not.
    close = [0.6 + 0.027 * place for place in (-2, -1, 0, 1, 2)]
    tie = all_of(finished, {"max": close, "avg": base, "blur": [value - 0.5 for value in close]})
    assert first(tie) == (None, {"max", "avg"})


def test_the_power_of_bold(finished: Finished) -> None:
    """Five rivals, twelve seeds, a lead of two deviations of the seeds: power .54, with a correction for five .18."""
    generator, trials = np.random.default_rng(0), 1000
    draws = generator.normal(0, 1, (trials, 6, 12))
    draws[:, 0] += 2
    leads = draws[:, :1] - draws[:, 1:]
    least = (leads.mean(axis=2) * sqrt(12) / leads.std(axis=2, ddof=1)).min(axis=1)
    assert (least > anytime_reach(12)).mean() > 0.45
    assert (least > anytime_reach(12, 0.05 / 5)).mean() < 0.25
    # The function decides as the vectorised comparison does.
    for trial in range(50):
        values = {f"p{index}": list(row) for index, row in enumerate(draws[trial])}
        assert (best(all_of(finished, values)) == "p0") == bool(least[trial] > anytime_reach(12))


def test_bold_is_rarely_wrong_among_equals(finished: Finished) -> None:
    """Whenever one looks: after 4, 6, ..., 12 seeds of two groups."""
    trials, wrong = 100, 0
    for draws in np.random.default_rng(1).normal(0, 1, (trials, 2, 12)):
        looks = [draws[:, :n].tolist() for n in range(4, 13, 2)]
        wrong += any(best(all_of(finished, {"max": one, "avg": other})) is not None for one, other in looks)
    assert wrong / trials <= 0.05


def test_networks_that_have_not_learned_take_no_part(finished: Finished) -> None:
    results = [finished("avg", seed, 0.6 + 0.01 * seed) for seed in range(5)]
    results += [finished("blur", seed, 0.5 + 0.011 * seed) for seed in range(5)]
    # One seed of five failed: the other four still lead.
    failing = [finished("max", seed, 0.9 + 0.0101 * seed, learned=seed != 1) for seed in range(5)]
    assert best([*results, *failing]) == "max"
    (table,) = comparison_tables(METRICS, [*results, *failing])
    assert [row.seeds_text for row in table.rows] == ["5", "5", "4 of 5 learned"]
    nobody = [finished("max", seed, 0.9 + 0.01 * seed, learned=False) for seed in range(5)]
    assert best([*results, *nobody]) == "avg"
    (table,) = comparison_tables(METRICS, [*results, *nobody])
    assert [entry.text for entry in table.rows[2].entries] == ["-", "-"]


def test_images_take_part_in_the_test(finished: Finished) -> None:
    """Four seeds agree on the images they happen to see; other images could turn the order."""
    generator = np.random.default_rng(5)
    lead = generator.normal(0.02, 0.5, 20)
    tables, results = {}, []
    for pool, values in (("max", 0.5 + lead), ("avg", np.full(20, 0.5))):
        for seed in range(4):
            column = values + 0.001 * seed * (pool == "max")
            result = finished(pool, seed, float(column.mean()))
            tables[result.cell.id] = pd.DataFrame({"correct": column})
            results.append(result)
    metric = replace(ACCURACY, per_image="answers.correct")
    leader = "max" if lead.mean() > 0 else "avg"
    assert best(results, metric) == leader
    found = first_place(groups_of(results), metric, ImageValues(lambda cell, name: {"answers": tables[cell]}[name]))
    assert found.best is None
    assert len(found.tied) == 2


def test_logarithmic_columns_say_geometric_mean(finished: Finished) -> None:
    metric = replace(SPREAD, scale="log", floor=0.001)
    results = [finished("max", seed, 0.5, metrics={"spread": value}) for seed, value in enumerate((0.1, 0.2, 0.4, 0.2))]
    (table,) = comparison_tables([metric], results)
    assert table.metrics == ["spread / logit\u00a0↓, geometric mean"]
    # Logarithms of 1/2, 1, 2, 1 times .2: s = log 2 sqrt(2/3) = .566; 7.67 * .566 / 2 = 2.17, a factor of 8.76.
    assert table.rows[0].entries[0].text == "0.20 [0.02, 1.75]"


def test_lower_is_better_where_the_metric_says_so(finished: Finished) -> None:
    results = [
        finished(pool, seed, 0.5, metrics={"spread": value + 0.1 * seed})
        for pool, value in (("max", 3.0), ("avg", 1.0))
        for seed in range(4)
    ]
    assert best(results, SPREAD) == "avg"
    # Neither direction is good, and equal accuracies are no win.
    assert best(results, Metric("spread", "spread")) is None
    assert best(results) is None


def test_a_winner_needs_pairs(finished: Finished) -> None:
    assert best(all_of(finished, {"max": [0.9], "avg": [0.1]})) is None
    alone = all_of(finished, {"max": [0.9, 0.91, 0.92, 0.93]})
    assert best(alone) is None
    assert best([*alone, *(finished("avg", seed, 0.1) for seed in range(4))]) == "max"
    # Three common seeds are too few, even if each group has four, and even for a tie.
    assert first([*alone, *(finished("avg", seed, 0.1) for seed in range(1, 5))]) == (None, set())
    # One rival with too few pairs leaves it open who is best.
    pairs = [finished("avg", seed, 0.1) for seed in range(4)]
    few = [finished("blur", seed, 0.1) for seed in range(3)]
    assert first([*alone, *pairs, *few]) == (None, set())
    (table,) = comparison_tables(METRICS, [*alone, *pairs, *few])
    assert [row.seeds_text for row in table.rows] == ["4", "4", "n = 3, no interval"]
    assert [row.entries[0].text for row in table.rows[1:]] == ["0.100 ± 0.000", "0.100"]


def test_tables_do_not_mix_what_does_not_compare(finished: Finished) -> None:
    results = [
        finished(pool, 0, 0.5, dataset=dataset, variant=variant)
        for dataset, variant in (("a", "plain"), ("a", "rotated"), ("b", "plain"))
        for pool in ("max", "avg")
    ]
    tables = comparison_tables(METRICS, results)
    assert [table.caption for table in tables] == [
        f"dataset {dataset}, architecture net, variant {variant}, head avg"
        for dataset, variant in (("a", "plain"), ("a", "rotated"), ("b", "plain"))
    ]
    assert all(table.fields == ["pool"] and len(table.rows) == 2 for table in tables)


def test_tables_leave_out_fields_and_metrics_that_no_group_has(finished: Finished) -> None:
    results = [
        *(finished("max", 0, 0.9, model={"layers": n}, metrics={"spread": float(n)}) for n in (1, 2)),
        *(finished("max", 0, 0.9, dataset="photos", model={"padding": padding}) for padding in ("zeros", "circular")),
    ]
    shapes, photos = comparison_tables(METRICS, results)
    assert (shapes.fields, photos.fields) == (["layers"], ["padding"])
    assert any(name.startswith("spread") for name in shapes.metrics)
    assert not any(name.startswith("spread") for name in photos.metrics)
    # Both groups have the same accuracy and loss, in either table.
    assert shapes.equal == photos.equal == "accuracy\u00a0↑ 0.900, loss\u00a0↓ 0.100"
    assert [len(row.entries) for row in (*shapes.rows, *photos.rows)] == [1, 1, 0, 0]


def test_only_headline_metrics_are_columns(finished: Finished) -> None:
    (table,) = comparison_tables(METRICS, [finished("max", 0, 0.9, metrics={"hidden": 1.0})])
    assert table.metrics == ["accuracy\u00a0↑", "loss\u00a0↓"]


def test_integers_stay_integers(finished: Finished) -> None:
    results = [finished("max", 0, 0.5, model=model) for model in ({"width": 8}, {"width": 16}, {})]
    (table,) = comparison_tables(METRICS, results)
    assert table.fields == ["width"]
    assert sorted(row.fields[0] for row in table.rows) == ["-", "16", "8"]


def test_costs_have_no_interval_and_times_are_the_shortest(finished: Finished) -> None:
    costs = [{"cost_parameters": 12345.0, "cost_forward_ms": ms} for ms in (1.0, 1.5)]
    (table,) = comparison_tables([ACCURACY], [finished("max", seed, 0.5, metrics=costs[seed]) for seed in range(2)])
    assert table.metrics == ["accuracy\u00a0↑", "parameters", "forward / ms"]
    assert [entry.text for entry in table.rows[0].entries[1:]] == ["12,345", "1.00"]
