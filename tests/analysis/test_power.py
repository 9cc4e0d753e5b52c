"""The power of the gate against simulated nights."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from poolbench.analysis.incidents import ALPHA, SUSPICION
from poolbench.analysis.power import CONFIRMED, POWER, _Design, power_table
from poolbench.core import FIRST_RESERVE_SEED, Metric

METRICS = {"study": (Metric("V", "V", False, 0.05, gated=True), Metric("loss", "loss", False, 0.1))}


def power_by_simulation(design: _Design, distance: float, repeats: int = 40_000) -> float:
    """Draw paired differences of nights and confirmations, with the prior's variance known exactly."""
    generator = np.random.default_rng(0)
    seen = np.ones(repeats, dtype=bool)
    for n, alpha in ((design.seeds, design.night_alpha), (design.reserve, design.confirmation_alpha)):
        if n:
            drawn = generator.normal(distance, np.sqrt(design.variance), (repeats, n))
            d0 = design.freedom_of_prior
            # A prior worth d0 degrees of freedom is d0 more squared deviations.
            prior = generator.chisquare(d0, repeats) * design.variance if d0 else 0.0
            variance = (prior + drawn.var(axis=1, ddof=1) * (n - 1)) / (d0 + n - 1)
            seen &= drawn.mean(axis=1) / np.sqrt(variance / n) > stats.t.ppf(1 - alpha, d0 + n - 1)
    return float(seen.mean())


@pytest.mark.parametrize(
    "design",
    [
        _Design(6, 0, 0.001, 1.0, 4.0, 0.0),
        _Design(6, 8, SUSPICION / 3, ALPHA / CONFIRMED, 4.0, 0.0),
        _Design(7, 8, SUSPICION / 3, ALPHA / CONFIRMED, 0.01, 10.0),
    ],
)
def test_the_smallest_drop_is_seen_with_its_power(design: _Design) -> None:
    smallest = design.smallest()
    assert design.power(smallest) == pytest.approx(POWER, abs=1e-6)
    assert power_by_simulation(design, smallest) == pytest.approx(POWER, abs=0.01)
    assert power_by_simulation(design, smallest / 2) == pytest.approx(design.power(smallest / 2), abs=0.015)


def run(deviation: float = 0.0, reserve: int = 0) -> pd.DataFrame:
    seeds = [*range(6), *range(FIRST_RESERVE_SEED, FIRST_RESERVE_SEED + reserve)]
    generator = np.random.default_rng(3)
    rows = [
        {
            "benchmark": "study", "dataset": "d", "architecture": "a", "variant": "plain", "pool": f"p{pool}",
            "head": "avg", "seed": seed, "group": f"g{pool}", "cell": f"{pool} {seed}", "fingerprint": "",
            "learned": True, "metric": metric, "value": 0.3 + 0.1 * seed % 7 + deviation * generator.normal(),
            "images": 0,
        }
        for pool in range(5)
        for seed in seeds
        for metric in ("V", "loss")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_table_has_a_row_per_gated_metric_and_group() -> None:
    found = power_table(run(), run(0.02), METRICS)
    assert [(s.metric.name, s.group, s.seeds, s.reserve) for s in found] == [("V", f"g{i}", 6, 0) for i in range(5)]
    assert np.mean([s.deviation for s in found]) == pytest.approx(0.02, rel=0.3)
    for sight in found:
        assert sight.drop > sight.deviation
        assert sight.sees_tolerance == (sight.drop <= 0.05)


def test_more_seeds_see_smaller_drops() -> None:
    sight = power_table(run(), run(0.02), METRICS)[0]
    assert sight.halved is not None
    # With the square root of the number of seeds, or faster where few degrees of freedom cost something.
    assert 12 <= sight.halved <= 25
    twice = power_table(run(), run(0.04), METRICS)[0]
    assert twice.drop == pytest.approx(2 * sight.drop, rel=1e-6)


def test_a_night_has_the_seeds_of_the_baseline_even_if_fewer_were_repeated() -> None:
    again = run(0.02)
    few = power_table(run(), again[again["seed"] < 4], METRICS)
    assert {s.seeds for s in few} == {6}


def test_reserve_seeds_change_the_tests() -> None:
    with_reserve = power_table(run(reserve=8), run(0.02), METRICS)
    assert {s.reserve for s in with_reserve} == {8}
    assert all(s.seeds == 6 for s in with_reserve)
    # Suspicion needs less than Holm's method over all groups does.
    alone = power_table(run(), run(0.02), METRICS)
    assert all(a.drop < b.drop for a, b in zip(with_reserve, alone, strict=True))
