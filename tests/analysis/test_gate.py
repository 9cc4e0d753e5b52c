"""The gate: what each verdict needs, how often it alarms for nothing, and what it sees."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from poolbench.analysis.gate import compare, confirm
from poolbench.analysis.incidents import (
    ALPHA,
    SUSPICION,
    Incident,
    Learned,
    _holm,
    exit_code,
    judge,
    judge_bits,
    worst_by_group,
)
from poolbench.core import FIRST_RESERVE_SEED, Metric

METRICS = {
    "study": (
        Metric("accuracy", "accuracy", True, 0.02, gated=True, share=True),
        Metric("V", "V", False, 0.05, gated=True),
        Metric("loss", "loss", False, 0.01),
        Metric("train_loss", "training loss"),
    )
}
POOLS = ("max", "avg", "blur3", "aps")
RESERVE = range(FIRST_RESERVE_SEED, FIRST_RESERVE_SEED + 8)


def run(
    noise: int = 0,
    drop: Mapping[str, float] | None = None,
    seeds: range = range(6),
    deviation: float = 0.004,
    fingerprint: str = "",
    metrics: tuple[str, ...] = ("accuracy", "V", "loss"),
) -> pd.DataFrame:
    """Four groups with a deviation of .03 between seeds; a run of another ``noise`` differs from it by ``deviation``.

    ``drop`` lowers the accuracy of a pool in every seed.
    """
    of_seed = {seed: np.random.default_rng(seed).normal(0, 0.03, (len(POOLS), 3)) for seed in seeds}
    of_run = {seed: np.random.default_rng([noise, seed]).normal(0, deviation, (len(POOLS), 3)) for seed in seeds}
    rows = []
    for i, pool in enumerate(POOLS):
        for seed in seeds:
            values = (0.85, 0.3, 0.5) + of_seed[seed][i] + of_run[seed][i]
            values[0] -= (drop or {}).get(pool, 0.0)
            rows += [
                {
                    "benchmark": "study", "dataset": "d", "architecture": "a", "variant": "plain", "pool": pool,
                    "head": "avg", "seed": seed, "group": f"group {pool}", "cell": f"{pool} {seed}",
                    "fingerprint": f"{fingerprint} {pool} {seed}" if fingerprint else "", "learned": True,
                    "metric": metric, "value": float(value), "images": 1000 if metric == "accuracy" else 0,
                }
                for metric, value in zip(("accuracy", "V", "loss"), values, strict=True)
                if metric in metrics
            ]  # fmt: skip
    return pd.DataFrame(rows)


def judged(current: pd.DataFrame, baseline: pd.DataFrame | None = None, **given: bool) -> dict[str, Incident]:
    """Return {pool: incident}."""
    night = compare(run() if baseline is None else baseline, current, METRICS, **given)
    return {found.group.removeprefix("group "): found for found in judge(night.incidents)}


def verdicts(current: pd.DataFrame, baseline: pd.DataFrame | None = None, **given: bool) -> dict[str, str]:
    return {pool: found.verdict for pool, found in judged(current, baseline, **given).items()}


def test_a_repeat_on_another_machine_is_fine() -> None:
    assert verdicts(run(1)) == dict.fromkeys(POOLS, "fine")


def test_a_drop_smaller_than_the_scatter_of_the_seeds_is_caught() -> None:
    # Seeds differ by .03: without pairs, .02 in six seeds would be lost.
    found = judged(run(1, {"avg": 0.02}))
    assert {pool: i.verdict for pool, i in found.items()} == {**dict.fromkeys(POOLS, "fine"), "avg": "regressed"}
    assert exit_code(list(found.values())) == 1
    accuracy = next(c for c in found["avg"].gated if c.metric.name == "accuracy")
    assert accuracy.low < 0.02 < accuracy.high
    assert accuracy.before - accuracy.after == pytest.approx(0.02, abs=0.005)
    other = verdicts(run(1, {"avg": 0.02}, range(100, 106)))
    assert other["avg"] == "inconclusive"


def test_a_rise_is_an_improvement() -> None:
    assert verdicts(run(1, {"avg": -0.03}))["avg"] == "improved"


def test_a_drop_that_nobody_would_act_on_is_fine() -> None:
    found = judged(run(1, {"avg": 0.004}, range(40), 0.001), run(seeds=range(40), deviation=0.001))
    assert found["avg"].verdict == "fine"
    assert next(c.p_worse for c in found["avg"].gated if c.metric.name == "accuracy") < 1e-6


def test_noise_that_could_hide_a_drop_is_inconclusive() -> None:
    found = judged(run(1, deviation=0.05), run(deviation=0.05))
    assert {i.verdict for i in found.values()} == {"inconclusive"}
    assert exit_code(list(found.values())) == 0


def test_only_gated_metrics_alarm() -> None:
    worse = run(1)
    worse.loc[worse["metric"] == "loss", "value"] += 1
    found = judged(worse)
    assert {i.verdict for i in found.values()} == {"fine"}
    assert {c.metric.name for c in found["max"].comparisons} == {"accuracy", "V", "loss"}


def test_one_group_is_one_incident_however_many_metrics_fall() -> None:
    worse = run(1, {"avg": 0.1})
    worse.loc[(worse["metric"] == "V") & (worse["pool"] == "avg"), "value"] += 0.5
    assert len(judged(worse)) == 4
    assert verdicts(worse)["avg"] == "regressed"


def test_equal_bits_in_an_equal_environment_are_identical() -> None:
    same = run(fingerprint="here")
    assert verdicts(same, same) == dict.fromkeys(POOLS, "identical")
    assert verdicts(same, same, identity=False) == dict.fromkeys(POOLS, "fine")
    # Equal values from an unknown or another environment are tested like any others.
    for baseline in (run(), run(fingerprint="there")):
        found = judged(same, baseline)
        assert {(i.verdict, i.bits) for i in found.values()} == {("fine", "unknown")}


def test_the_digest_is_computed_from_the_values() -> None:
    same, changed = run(fingerprint="here"), run(fingerprint="here")
    row = changed[(changed["pool"] == "avg") & (changed["metric"] == "loss")].index[0]
    changed.loc[row, "value"] = np.nextafter(changed.loc[row, "value"], 2)
    found = judged(changed, same)
    assert {pool: i.bits for pool, i in found.items()} == {**dict.fromkeys(POOLS, "same"), "avg": "changed"}
    assert found["avg"].verdict == "fine"
    # A new metric is no changed bit.
    assert verdicts(same, run(fingerprint="here", metrics=("accuracy", "V"))) == dict.fromkeys(POOLS, "identical")


def test_absent_data_is_a_verdict_of_its_own() -> None:
    night = run(1)
    gone = night[night["pool"] != "avg"]
    assert verdicts(gone)["avg"] == "no data"
    assert exit_code(list(judged(gone).values())) == 3
    fewer = night[(night["pool"] != "avg") | (night["seed"] < 3)]
    assert judged(fewer)["avg"].missing == "3 of 6 seeds are there"
    assert verdicts(fewer)["avg"] == "no data"
    assert exit_code([]) == 3
    undefined = night[(night["pool"] != "avg") | (night["metric"] != "V")]
    assert judged(undefined)["avg"].missing == "V has no value for 6 of 6 seeds"
    renamed = compare(run().assign(benchmark="gone"), night, METRICS)
    assert {i.missing for i in renamed.incidents} == {"there is no benchmark 'gone' any more"}


@pytest.mark.parametrize(("metric", "count"), [("accuracy", 1), ("accuracy", 6), ("V", 2)])
def test_a_metric_that_became_nan_is_no_data(metric: str, count: int) -> None:
    """The networks count as not learned where it is the accuracy, and the others look as before."""
    night = run(1)
    hit = (night["pool"] == "avg") & (night["seed"] < count)
    night.loc[hit & (night["metric"] == metric), "value"] = float("nan")
    if metric == "accuracy":
        night.loc[hit, "learned"] = False
    found = judged(night)["avg"]
    assert found.missing == f"{metric} has no value for {count} of 6 seeds"
    assert found.verdict == ("regressed" if count == 6 else "no data")
    assert verdicts(night)["max"] in ("fine", "inconclusive")


def test_a_value_that_the_baseline_has_not_is_not_missing() -> None:
    before = run()
    before.loc[(before["pool"] == "avg") & (before["seed"] == 0), ["value", "learned"]] = float("nan"), False
    night = run(1)
    night.loc[(night["pool"] == "avg") & (night["seed"] == 0), ["value", "learned"]] = float("nan"), False
    assert judged(night, before)["avg"].missing == ""


def test_what_cannot_be_tested_is_no_data() -> None:
    night = run(1)
    rare = night[(night["pool"] != "avg") | (night["metric"] != "V") | (night["seed"] == 0)]
    assert judged(rare)["avg"].missing == "V has no value for 5 of 6 seeds"
    others = run(1, seeds=range(6, 12))
    others = others[(others["pool"] != "avg") | (others["metric"] != "V") | (others["seed"] == 6)]
    assert judged(others)["avg"].missing == "too few values to test V"
    for baseline, now in ((run(seeds=range(1)), run(1, seeds=range(1))), (run(), run(1, seeds=range(77, 78)))):
        assert set(verdicts(now, baseline).values()) == {"no data"}
    only_reserve = run(seeds=RESERVE)
    assert set(verdicts(night, only_reserve).values()) == {"no data"}


def test_a_regression_outranks_absent_data() -> None:
    worse = run(1, {"avg": 0.1})
    fewer = worse[(worse["pool"] != "avg") | (worse["seed"] < 4)]
    assert verdicts(fewer)["avg"] == "regressed"


def with_failed(frame: pd.DataFrame, pool: str, seeds: range) -> pd.DataFrame:
    """Return results in which these networks have not learned."""
    failed = (frame["pool"] == pool) & frame["seed"].isin(list(seeds))
    accuracy = failed & (frame["metric"] == "accuracy")
    return frame.assign(learned=~failed & frame["learned"], value=frame["value"].where(~accuracy, 0.1))


def test_a_network_that_has_not_learned_is_no_alarm() -> None:
    found = judged(with_failed(run(1), "avg", range(1)))["avg"]
    assert found.verdict == "inconclusive"
    assert found.learned == Learned(6, 6, 5, 6)
    assert [c.n for c in found.gated] == [5, 5]


def test_networks_that_learn_no_more_are_a_regression() -> None:
    # All of them: their accuracies fell. Most of them: too many for chance.
    assert verdicts(with_failed(run(1), "avg", range(6)))["avg"] == "regressed"
    with_reserve = pd.concat([run(), run(seeds=RESERVE)])
    assert verdicts(with_failed(run(1), "avg", range(5)), with_reserve)["avg"] == "regressed"


def test_fishers_test() -> None:
    learned = Learned(14, 14, 1, 6)
    oracle = stats.fisher_exact([[1, 5], [14, 0]], alternative="less").pvalue
    assert learned.p_worse == pytest.approx(oracle)
    assert Learned(5, 5, 5, 5).p_worse == 1
    assert Learned(0, 5, 5, 5).p_worse == 1


def test_a_group_that_never_learned_is_not_compared() -> None:
    dead = with_failed(run(), "avg", range(6))
    assert verdicts(with_failed(run(1), "avg", range(6)), dead)["avg"] == "inconclusive"


def confirmed(night: pd.DataFrame, again: pd.DataFrame) -> dict[str, Incident]:
    baseline = pd.concat([run(), run(seeds=RESERVE)])
    found = confirm(compare(baseline, night, METRICS), baseline, again, METRICS)
    return {i.group.removeprefix("group "): i for i in judge(found.incidents, confirming=True)}


def test_reserve_seeds_are_no_part_of_the_night() -> None:
    baseline = pd.concat([run(), run(seeds=RESERVE)])
    found = judged(run(1), baseline)
    assert {i.verdict for i in found.values()} == {"fine"}
    assert {c.n for i in found.values() for c in i.comparisons} == {6}


def test_a_suspicious_group_is_judged_on_its_reserve_seeds_alone() -> None:
    night = run(1, {"avg": 0.02})
    real = confirmed(night, run(1, {"avg": 0.02}, RESERVE))
    assert real["avg"].verdict == "regressed"
    assert real["avg"].confirmation is not None
    assert {c.n for c in real["avg"].confirmation.gated} == {8}
    luck = confirmed(night, run(1, seeds=RESERVE))
    assert {(i.verdict, i.reserve) for i in luck.values()} == {("fine", 8)}
    assert {pool for pool, i in luck.items() if i.confirmation} == {"avg"}


def test_a_confirmation_that_lacks_seeds_is_no_data() -> None:
    found = confirmed(run(1, {"avg": 0.02}), run(1, seeds=RESERVE[:3]))
    assert found["avg"].verdict == "no data"
    assert exit_code(list(found.values())) == 3


def test_a_confirmation_that_did_not_run_or_compares_nothing_is_no_data() -> None:
    night = run(1, {"avg": 0.02})
    assert confirmed(night, run(1, seeds=RESERVE).iloc[:0])["avg"].verdict == "no data"
    without = run(1, seeds=RESERVE)
    without = without[without["metric"] != "accuracy"]
    found = confirmed(night, without)["avg"]
    assert found.verdict == "no data"
    assert found.confirmation is not None
    assert "accuracy" in found.confirmation.missing


def test_two_reserve_seeds_confirm_nothing() -> None:
    few = RESERVE[:2]
    baseline = pd.concat([run(), run(seeds=few)])
    night = confirm(compare(baseline, run(1, {"avg": 0.03}), METRICS), baseline, run(1, seeds=few), METRICS)
    found = {i.group: i for i in judge(night.incidents, confirming=True)}
    assert (found["group avg"].verdict, found["group avg"].confirmation) == ("regressed", None)


def test_bits_alone() -> None:
    same, changed = run(fingerprint="here"), run(fingerprint="here", drop={"avg": 1e-12})
    night = compare(same, changed, METRICS)
    assert [i.verdict for i in judge_bits(night.incidents)] == ["identical", "regressed", "identical", "identical"]
    elsewhere = compare(same, run(fingerprint="there"), METRICS)
    assert {i.verdict for i in judge_bits(elsewhere.incidents)} == {"no data"}
    # A metric that is gone is a changed bit, one that is new is none.
    lost = compare(same, run(fingerprint="here", metrics=("accuracy", "V")), METRICS)
    assert {i.bits for i in lost.incidents} == {"changed"}


def test_the_worst_of_several_comparisons_counts() -> None:
    night = run(1, {"avg": 0.02})
    release = compare(run(), night, METRICS)
    recent = compare(run(2, {"avg": 0.02}), night, METRICS, reference="the last good nights")
    found = worst_by_group(judge([*recent.incidents, *release.incidents]))
    assert len(found) == 4
    assert [(i.group, i.reference) for i in found if i.verdict == "regressed"] == [("group avg", "baseline")]


def test_holm_against_its_definition() -> None:
    """Holm rejects a hypothesis if Bonferroni rejects every set of hypotheses that holds it (closed testing)."""
    generator = np.random.default_rng(0)
    for _ in range(200):
        p = (generator.random(5) ** 3).tolist()
        sets = [[i for i in range(5) if code >> i & 1] for code in range(1, 32)]
        closed = [
            all(min(p[i] for i in chosen) <= 0.05 / len(chosen) for chosen in sets if wanted in chosen)
            for wanted in range(5)
        ]
        assert _holm(p, 0.05) == closed


def null_night(generator: np.random.Generator, groups: int, chaos: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return two runs of equal networks; the true deviations differ between groups as F(., ``chaos``) does."""
    n = 6
    deviation = 0.004 * np.sqrt(chaos / generator.chisquare(chaos, groups))[:, None]
    # Groups share the luck of their seeds, and a part of what rounding does.
    level = 0.8 + generator.normal(0, 0.02, (1, n)) + generator.normal(0, 0.02, (groups, n))
    shared = generator.normal(0, 1, (1, n))
    after = level + deviation * (0.6 * shared + 0.8 * generator.normal(0, 1, (groups, n)))
    frames = []
    for values in (level, after):
        group, seed = np.divmod(np.arange(groups * n), n)
        frames.append(
            pd.DataFrame(
                {
                    "benchmark": "study", "dataset": "d", "architecture": "a", "variant": "plain",
                    "pool": group, "head": "avg", "seed": seed, "group": group.astype(str), "cell": "c",
                    "fingerprint": "", "learned": True, "metric": "V", "value": values.ravel(), "images": 0,
                }
            )
        )  # fmt: skip
    return frames[0], frames[1]


@pytest.mark.parametrize("chaos", [3.0, 30.0])
def test_null_nights_alarm_in_less_than_one_of_a_hundred(chaos: float) -> None:
    generator = np.random.default_rng(5)
    nights, alarms, suspicious, covered, compared = 250, 0, 0, 0, 0
    for _ in range(nights):
        before, after = null_night(generator, 12, chaos)
        found = judge(compare(before, after, METRICS).incidents)
        alarms += any(i.verdict == "regressed" for i in found)
        suspicious += sum(i.is_suspicious for i in found)
        every = [c for i in found for c in i.gated]
        covered += sum(c.low < 0 for c in every) + sum(c.high > 0 for c in every)
        compared += len(every)
    # 250 nights with 1 %: more than 8 have probability .001. (20,000 nights: docs/lab.)
    assert alarms <= 8
    assert suspicious / compared <= SUSPICION
    assert covered / (2 * compared) == pytest.approx(0.95, abs=0.012)
    assert ALPHA <= 0.01
