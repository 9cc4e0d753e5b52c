"""The gate: a planted drop is caught, an unchanged repeat is not, absent data is no success."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from poolbench.analysis.gate import compare, exit_code, to_junit, to_markdown


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


def outcomes(current: pd.DataFrame, baseline: pd.DataFrame | None = None) -> dict[str, str]:
    found = compare(results() if baseline is None else baseline, current)
    return {comparison.group: comparison.outcome for comparison in found}


def test_an_unchanged_repeat_passes() -> None:
    assert outcomes(results()) == {"group avg": "fine", "group max": "fine"}
    assert exit_code(compare(results(), results())) == 0


def test_other_seeds_pass_nearly_always() -> None:
    baseline = results()
    found = [outcomes(results(noise=noise), baseline) for noise in range(1, 101)]
    assert sum("regressed" in night.values() for night in found) == 0


def test_a_planted_drop_is_caught() -> None:
    found = compare(results(), results(shift=-0.03, noise=1))
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
    wide = results()
    wide["value"] = 0.8 + (wide["value"] - 0.8) * 20
    assert set(outcomes(wide, wide).values()) == {"inconclusive"}
    assert exit_code(compare(wide, wide)) == 0


def test_metrics_without_direction_are_not_judged() -> None:
    assert compare(results(metric="train_loss"), results(metric="train_loss", shift=3)) == []


def test_absent_data_is_a_failure_of_its_own() -> None:
    current = results()
    current = current[current["head"] == "avg"]
    found = compare(results(), current)
    assert {c.group: c.outcome for c in found} == {"group avg": "fine", "group max": "no data"}
    assert exit_code(found) == 3
    assert exit_code(compare(results(), results().iloc[:0])) == 3
    assert exit_code([]) == 3
    assert outcomes(results(), results(seeds=range(1)))["group avg"] == "no data"
    assert outcomes(results(seeds=range(4)))["group avg"] == "no data"
    gone = results().assign(benchmark="no_longer_there")
    assert [c.outcome for c in compare(gone, results())] == ["no data"]


def test_a_regression_outranks_absent_data() -> None:
    current = results(shift=-0.1)
    assert exit_code(compare(results(), current[current["head"] == "avg"])) == 1


def test_junit_counts_what_happened() -> None:
    current = results(shift=-0.1)
    found = compare(results(), current[current["head"] == "avg"])
    suite = ElementTree.fromstring(to_junit(found)).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "1")
    cases = {case.get("name"): [child.tag for child in case] for case in suite}
    assert cases == {"head=avg": ["failure"], "head=max": ["error"]}


def test_markdown_names_the_culprit() -> None:
    text = to_markdown(compare(results(), results(shift=-0.1)))
    assert "2 comparisons: 1 regressed, 0 no data, 0 inconclusive, 1 fine." in text
    assert "| regressed | global_pooling | head=avg | accuracy |" in text
    assert "head=max" not in text


@pytest.mark.parametrize("alpha", [0.1, 0.001])
def test_alpha_widens_the_interval(alpha: float) -> None:
    found = compare(results(), results(), alpha)[0]
    usual = compare(results(), results())[0]
    assert found.expected is not None
    assert usual.expected is not None
    assert (found.expected.half_width < usual.expected.half_width) == (alpha > 0.01)
