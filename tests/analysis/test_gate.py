"""The gate: a planted drop alarms, an unchanged repeat does not, undefined metrics are not missing data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from poolbench.analysis.gate import Comparison, compare, exit_code
from poolbench.core import Metric

METRICS = {
    "global_pooling": (
        Metric("accuracy", "accuracy", True, 0.01),
        Metric("kappa", "kappa", True, 0.01),
        Metric("loss", "loss", False, 0.01),
        Metric("train_loss", "training loss"),
    )
}


def results(shift: float = 0.0, seeds: range = range(5), noise: int = 0, metric: str = "accuracy") -> pd.DataFrame:
    """Two groups of global_pooling whose accuracy scatters by .002."""
    generator = np.random.default_rng(noise)
    rows = [
        {
            "benchmark": "global_pooling", "dataset": "d", "architecture": "a", "variant": "corrected", "pool": "max",
            "head": head, "seed": seed, "group": f"group {head}", "cell": f"{head} {seed}", "learned": True,
            "metric": metric, "value": 0.8 + generator.normal(0, 0.002) + (shift if head == "avg" else 0),
        }
        for head in ("avg", "max")
        for seed in seeds
    ]  # fmt: skip
    return pd.DataFrame(rows)


def compared(baseline: pd.DataFrame, current: pd.DataFrame) -> list[Comparison]:
    return compare(baseline, current, METRICS)


def outcomes(current: pd.DataFrame, baseline: pd.DataFrame | None = None, metric: str = "") -> dict[str, str]:
    """Return {group: outcome}, of one metric if there are several."""
    found = compared(results() if baseline is None else baseline, current)
    return {comparison.group: comparison.outcome for comparison in found if metric in ("", comparison.metric)}


def with_kappa(undefined: dict[str, tuple[int, ...]], noise: int = 0, seeds: range = range(5)) -> pd.DataFrame:
    """Two groups with accuracy, and kappa except for the undefined {head: seeds}."""
    kappa = results(noise=noise + 100, seeds=seeds, metric="kappa")
    gone = [row["seed"] in undefined.get(row["head"], ()) for _, row in kappa.iterrows()]
    return pd.concat([results(noise=noise, seeds=seeds), kappa[~np.array(gone)]], ignore_index=True)


def test_an_unchanged_repeat_passes() -> None:
    assert outcomes(results()) == {"group avg": "fine", "group max": "fine"}
    assert exit_code(compared(results(), results())) == 0


def test_other_seeds_pass_nearly_always() -> None:
    baseline = results()
    found = [outcomes(results(noise=noise), baseline) for noise in range(1, 101)]
    assert sum("regressed" in night.values() for night in found) == 0


def test_a_planted_drop_is_caught() -> None:
    found = compared(results(), results(shift=-0.03, noise=1))
    assert {c.group: c.outcome for c in found} == {"group avg": "regressed", "group max": "fine"}
    assert exit_code(found) == 1


def test_a_rise_is_no_regression_of_accuracy_but_one_of_loss() -> None:
    assert outcomes(results(shift=0.05))["group avg"] == "fine"
    loss = results(metric="loss")
    assert outcomes(results(shift=0.05, metric="loss"), loss)["group avg"] == "regressed"
    assert outcomes(results(shift=-0.05, metric="loss"), loss)["group avg"] == "fine"


def test_a_significant_drop_inside_the_margin_passes() -> None:
    # Accuracy has a margin of .01; ten times the scatter of the mean, and nobody would act on it.
    assert outcomes(results(shift=-0.009))["group avg"] == "fine"


def test_a_drop_inside_the_noise_is_inconclusive() -> None:
    wide, other = results(), results(noise=1)
    for frame in (wide, other):
        frame["value"] = 0.8 + (frame["value"] - 0.8) * 20
    assert set(outcomes(other, wide).values()) == {"inconclusive"}
    assert exit_code(compared(wide, other)) == 0


def test_equal_values_are_fine_however_wide_the_interval() -> None:
    wide = results()
    wide["value"] = 0.8 + (wide["value"] - 0.8) * 20
    assert set(outcomes(wide, wide).values()) == {"fine"}
    shuffled = wide.sample(frac=1, random_state=0)
    assert set(outcomes(shuffled, wide).values()) == {"fine"}
    # The same values on other seeds are a coincidence and prove nothing.
    swapped = wide.assign(seed=4 - wide["seed"])
    assert set(outcomes(swapped, wide).values()) == {"inconclusive"}


@pytest.mark.parametrize("undefined", [{}, {"avg": (1,)}, {"avg": (0, 1)}, {"avg": (1,), "max": (0, 1)}])
@pytest.mark.parametrize("seeds", [range(1), range(2), range(5)])
def test_a_run_compared_with_itself_is_fine(undefined: dict[str, tuple[int, ...]], seeds: range) -> None:
    run = with_kappa(undefined, seeds=seeds)
    found = compared(run, run)
    assert {comparison.outcome for comparison in found} == {"fine"}
    assert exit_code(found) == 0


def test_a_baseline_with_one_defined_value_judges_nothing() -> None:
    baseline = with_kappa({"avg": (1,)}, seeds=range(2))
    current = with_kappa({"avg": (1,)}, noise=1, seeds=range(2))
    found = next(c for c in compared(baseline, current) if (c.group, c.metric) == ("group avg", "kappa"))
    assert (found.outcome, found.expected, found.n) == ("inconclusive", None, 1)
    assert found.reason == "the baseline has fewer than 2 seeds with a defined value"
    assert exit_code(compared(baseline, current)) == 0
    assert set(outcomes(results(noise=1, seeds=range(1)), results(seeds=range(1))).values()) == {"inconclusive"}


def test_a_seed_that_is_absent_is_missing_data_even_if_its_metric_was_undefined() -> None:
    baseline = with_kappa({"avg": (4,)})
    current = with_kappa({}, seeds=range(4))
    assert outcomes(current, baseline, "kappa") == {"group avg": "no data", "group max": "no data"}


def test_a_metric_that_becomes_undefined() -> None:
    baseline = with_kappa({})
    partly = [c for c in compared(baseline, with_kappa({"avg": (2,)}, noise=1)) if c.metric == "kappa"]
    assert {c.group: c.outcome for c in partly} == {"group avg": "inconclusive", "group max": "fine"}
    assert partly[0].reason == "defined for 4 seeds, in the baseline for 5"
    assert exit_code(partly) == 0
    # In every seed it is no accident of one network.
    nowhere = with_kappa({"avg": tuple(range(5))}, noise=1)
    assert outcomes(nowhere, baseline, "kappa") == {"group avg": "no data", "group max": "fine"}
    # Values that are left can still show a drop.
    worse = with_kappa({"avg": (2,)}, noise=1)
    worse.loc[worse["metric"] == "kappa", "value"] -= 0.1
    assert set(outcomes(worse, baseline, "kappa").values()) == {"regressed"}


def test_a_row_without_a_value_is_an_undefined_metric() -> None:
    gaps = with_kappa({})
    gaps.loc[(gaps["metric"] == "kappa") & (gaps["seed"] == 1), "value"] = np.nan
    same = with_kappa({"avg": (1,), "max": (1,)})
    assert outcomes(gaps, same, "kappa") == outcomes(same, gaps, "kappa") == {"group avg": "fine", "group max": "fine"}


def test_metrics_without_direction_are_not_judged() -> None:
    assert compared(results(metric="train_loss"), results(metric="train_loss", shift=3)) == []


def test_absent_data_is_a_failure_of_its_own() -> None:
    current = results()
    current = current[current["head"] == "avg"]
    found = compared(results(), current)
    assert {c.group: c.outcome for c in found} == {"group avg": "fine", "group max": "no data"}
    assert exit_code(found) == 3
    assert exit_code(compared(results(), results().iloc[:0])) == 3
    assert exit_code([]) == 3
    assert outcomes(results(seeds=range(4)))["group avg"] == "no data"
    gone = results().assign(benchmark="no_longer_there")
    assert [c.outcome for c in compared(gone, results())] == ["no data"]


def test_a_regression_outranks_absent_data() -> None:
    current = results(shift=-0.1)
    assert exit_code(compared(results(), current[current["head"] == "avg"])) == 1


@pytest.mark.parametrize("alpha", [0.1, 0.001])
def test_alpha_widens_the_interval(alpha: float) -> None:
    found = compare(results(), results(), METRICS, alpha)[0]
    usual = compared(results(), results())[0]
    assert found.expected is not None
    assert usual.expected is not None
    assert (found.expected.half_width < usual.expected.half_width) == (alpha > 0.01)


def with_learned(frame: pd.DataFrame, unlearned: range, accuracy: float = 0.1) -> pd.DataFrame:
    """Return results in which these seeds of head avg have not learned."""
    failed = (frame["head"] == "avg") & frame["seed"].isin(list(unlearned))
    return frame.assign(learned=~failed, value=frame["value"].where(~failed, accuracy))


def test_a_network_that_has_not_learned_is_one_finding_and_no_mean() -> None:
    found = compared(results(), with_learned(results(noise=1), range(1)))
    named = {(c.group, c.metric): c for c in found}
    assert named["group avg", "learned"].outcome == "inconclusive"
    assert named["group avg", "learned"].reason == "4 of 5 networks have learned, in the baseline 5 of 5"
    # Its accuracy of .1 is in no mean.
    assert named["group avg", "accuracy"].outcome != "regressed"
    assert named["group avg", "accuracy"].observed == pytest.approx(0.8, abs=0.01)
    assert ("group max", "learned") not in named


def test_networks_that_learn_no_more_are_a_regression() -> None:
    found = {(c.group, c.metric): c for c in compared(results(), with_learned(results(noise=1), range(5)))}
    # Fisher: 1 / (10 choose 5) = 1 / 252.
    assert found["group avg", "learned"].outcome == "regressed"
    assert (found["group avg", "accuracy"].outcome, found["group avg", "accuracy"].n) == ("inconclusive", 0)
    # What did not learn in the baseline, either, is no finding; nor is one more that does.
    weak = with_learned(results(), range(5))
    assert {c.group for c in compared(weak, weak)} == {"group max"}
    assert {c.metric for c in compared(with_learned(results(), range(2)), results(noise=1))} == {"accuracy"}
