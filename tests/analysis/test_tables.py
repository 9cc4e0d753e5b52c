"""Comparison tables and their winners, on planted numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from poolbench.analysis.groups import groups_of
from poolbench.analysis.tables import best_group, comparison_tables
from poolbench.core import Metric, Result

Finished = Callable[..., Result]
ACCURACY = Metric("accuracy", "accuracy", True, 0.01)
SPREAD = Metric("spread", "spread", False, 0.1, unit="logit")
METRICS = (ACCURACY, Metric("loss", "loss", False, 0.01), SPREAD, Metric("hidden", "hidden", True, headline=False))


def all_of(finished: Finished, accuracies: Mapping[str, Sequence[float]]) -> list[Result]:
    """Make results from {pool: accuracies of seeds 0, 1, ...}."""
    return [finished(pool, seed, value) for pool, values in accuracies.items() for seed, value in enumerate(values)]


def best(results: Sequence[Result], metric: Metric = ACCURACY) -> str | None:
    """Return the pool of the best group."""
    groups = groups_of(results)
    name = best_group(groups, metric)
    return next((str(group.fields["pool"]) for group in groups if group.id == name), None)


def test_bold_pays_for_the_number_of_comparisons(finished: Finished) -> None:
    # Differences 0.1 +- 0.0357: t = sqrt 3 / 0.357 = 4.85, p = 0.04 against one group, 0.08 against two.
    base, ahead = [0.5, 0.5, 0.5], [0.5 + 0.1 * (1 + step) for step in (-0.357, 0, 0.357)]
    results = all_of(finished, {"max": ahead, "avg": base})
    assert best(results) == "max"
    assert best([*results, *all_of(finished, {"blur": base})]) is None


def test_groups_with_an_unlearned_network_take_no_part(finished: Finished) -> None:
    results = [finished("avg", seed, 0.6 + 0.01 * seed) for seed in range(3)]
    results += [finished("blur", seed, 0.5 + 0.011 * seed) for seed in range(3)]
    results += [finished("max", seed, 0.9 + 0.01 * seed, learned=seed != 1) for seed in range(3)]
    assert best(results) == "avg"


def test_lower_is_better_where_the_metric_says_so(finished: Finished) -> None:
    results = [
        finished(pool, seed, 0.5, metrics={"spread": value + 0.1 * seed})
        for pool, value in (("max", 3.0), ("avg", 1.0))
        for seed in range(3)
    ]
    assert best(results, SPREAD) == "avg"
    # Neither direction is good, and equal accuracies are no win.
    assert best(results, Metric("spread", "spread")) is None
    assert best(results) is None


def test_a_winner_needs_pairs(finished: Finished) -> None:
    assert best(all_of(finished, {"max": [0.9], "avg": [0.1]})) is None
    alone = all_of(finished, {"max": [0.9, 0.91]})
    assert best(alone) is None
    assert best([*alone, finished("avg", 7, 0.1), finished("avg", 8, 0.1)]) is None


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
        *(finished("max", 0, 0.9, model={"layers": layers}, metrics={"spread": 1.0}) for layers in (1, 2)),
        *(finished("max", 0, 0.9, dataset="photos", model={"padding": padding}) for padding in ("zeros", "circular")),
    ]
    shapes, photos = comparison_tables(METRICS, results)
    assert (shapes.fields, photos.fields) == (["layers"], ["padding"])
    assert any(name.startswith("spread") for name in shapes.metrics)
    assert not any(name.startswith("spread") for name in photos.metrics)


def test_only_headline_metrics_are_columns(finished: Finished) -> None:
    (table,) = comparison_tables(METRICS, [finished("max", 0, 0.9, metrics={"hidden": 1.0})])
    assert table.metrics == ["accuracy\u00a0↑", "loss\u00a0↓"]


def test_integers_stay_integers(finished: Finished) -> None:
    results = [finished("max", 0, 0.5, model=model) for model in ({"width": 8}, {"width": 16}, {})]
    (table,) = comparison_tables(METRICS, results)
    assert table.fields == ["width"]
    assert sorted(row.fields[0] for row in table.rows) == ["-", "16", "8"]


def test_costs_have_no_interval(finished: Finished) -> None:
    costs = [{"cost_parameters": 12345.0, "cost_forward_ms": ms} for ms in (1.0, 1.5)]
    (table,) = comparison_tables([ACCURACY], [finished("max", seed, 0.5, metrics=costs[seed]) for seed in range(2)])
    assert table.metrics == ["accuracy\u00a0↑", "parameters", "forward / ms"]
    assert [entry.text for entry in table.rows[0].entries[1:]] == ["12,345", "1.25"]
