"""Two sets of results side by side, on planted changes."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from poolbench.analysis.comparison import compare_results
from poolbench.analysis.frames import results_frame
from poolbench.core import Metric, Result

Finished = Callable[..., Result]
METRICS = {
    "study": (
        Metric("accuracy", "accuracy", True, 0.01),
        Metric("loss", "loss", False, 0.01),
        Metric("spread", "spread", False, 0.1, scale="log", floor=0.001),
        Metric("hidden", "hidden", True, headline=False),
        Metric("units", "units"),
    )
}
NOISE = (-0.002, 0.001, 0.002, -0.001, 0.0)


def frame(
    finished: Finished, pool: str, accuracy: float, loss: float, noise: float = 0.0, seeds: int = 5
) -> pd.DataFrame:
    results = [
        finished(
            pool, seed, accuracy + 0.01 * seed + noise * NOISE[seed],
            metrics={"loss": loss, "spread": 0.1 * (1 + seed) * (2 if noise else 1), "hidden": 1 + noise, "units": 3.0},
        )
        for seed in range(seeds)
    ]  # fmt: skip
    return results_frame(results)


def verdicts(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, str]:
    return {change.metric.name: change.verdict for change in compare_results(before, after, METRICS).changes}


def test_equal_results_are_equal(finished: Finished) -> None:
    same = frame(finished, "max", 0.5, 0.3)
    found = compare_results(same, same, METRICS)
    assert verdicts(same, same) == {"accuracy": "equal", "loss": "equal", "spread": "equal"}
    assert (found.count("equal"), found.learned, found.apart) == (3, [], [])


def test_directions_margins_and_ratios(finished: Finished) -> None:
    before, after = frame(finished, "max", 0.5, 0.3), frame(finished, "max", 0.4, 0.2, noise=1.0)
    found = {change.metric.name: change for change in compare_results(before, after, METRICS).changes}
    assert {name: change.verdict for name, change in found.items()} == {
        "accuracy": "worse", "loss": "better", "spread": "worse",
    }  # fmt: skip
    accuracy = found["accuracy"]
    assert abs(accuracy.change.mean + 0.1) < 1e-12
    assert accuracy.change.low < -0.1 < accuracy.change.high < 0
    assert (accuracy.before.n, accuracy.change.n) == (5, 5)
    # Twice as large in every seed.
    assert abs(found["spread"].change.mean - 2) < 1e-9


def test_a_small_change_does_not_matter_and_a_noisy_one_is_open(finished: Finished) -> None:
    before = frame(finished, "max", 0.5, 0.3)
    assert verdicts(before, frame(finished, "max", 0.5, 0.3, noise=1.0))["accuracy"] == "no difference that matters"
    assert verdicts(before, frame(finished, "max", 0.52, 0.3, noise=20.0))["accuracy"] == "undecided"
    # Three seeds say nothing.
    few = frame(finished, "max", 0.4, 0.3, noise=1.0, seeds=3)
    assert verdicts(before, few)["accuracy"] == "undecided"


def test_groups_of_one_side_are_named(finished: Finished) -> None:
    both = frame(finished, "max", 0.5, 0.3)
    before = pd.concat([both, frame(finished, "avg", 0.5, 0.3)], ignore_index=True)
    after = pd.concat([both, frame(finished, "blur", 0.5, 0.3)], ignore_index=True)
    found = compare_results(before, after, METRICS)
    assert found.apart == ["study: pool=avg: only before", "study: pool=blur: only after"]


def test_networks_that_no_longer_learn_are_told(finished: Finished) -> None:
    before = frame(finished, "max", 0.5, 0.3)
    after = frame(finished, "max", 0.4, 0.3)
    one = compare_results(before, after.assign(learned=after["seed"] > 0), METRICS)
    assert one.changes[0].change.n == 4
    assert one.learned == ["study: pool=max: 5 of 5 networks learned before, 4 of 5 after"]
    none = compare_results(before, after.assign(learned=False), METRICS)
    assert none.changes == []
    assert none.learned == ["study: pool=max: 5 of 5 networks learned before, 0 of 5 after"]
    assert none.apart == ["study: pool=max: no headline metric of a network that has learned on both sides"]


def test_a_benchmark_that_is_not_known_is_told(finished: Finished) -> None:
    same = frame(finished, "max", 0.5, 0.3)
    assert compare_results(same, same, {}).apart == [
        "study: pool=max: no headline metric of a network that has learned on both sides"
    ]


def test_rows_of_a_history_are_matched_by_group(finished: Finished) -> None:
    columns = ["benchmark", "group", "seed", "learned", "metric", "value", "fingerprint", "images"]
    before = frame(finished, "max", 0.5, 0.3)
    rows = before[columns].assign(label="max")
    assert set(verdicts(rows, before)) == {"accuracy", "loss", "spread"}
