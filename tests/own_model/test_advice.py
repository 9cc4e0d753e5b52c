"""What is recommended, from made-up results whose answer is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from poolbench.analysis.statistics import Interval, crossed_estimate
from poolbench.own_model.advice import Trial, choose, outcomes_of, sentences_of
from poolbench.own_model.pace import AnswerTime
from poolbench.own_model.remedies import AS_IT_IS, Possible, Remedy, remedies, worst_sites
from poolbench.own_model.results import SiteEffect, Timing

IMAGES = 2000


def trial(remedy: Remedy, flips: float, right: float, slowdown: float = 1.0, seeds: int = 1, shift: int = 0) -> Trial:
    """Return a trial in which a share of the images flips at every step, and a share is right, for each seed alike."""
    place = (np.arange(IMAGES) + shift) % IMAGES
    table = pd.DataFrame({"flips": (place < flips * IMAGES) * 1.0, "right": (place[::-1] < right * IMAGES) * 1.0})
    taken = AnswerTime(Timing(1, slowdown, slowdown, slowdown, 5), Interval(slowdown, slowdown, slowdown, 5))
    return Trial(remedy, [table] * seeds, taken)


AS_IS = trial(AS_IT_IS, 0.2, 0.8)
BLUR = Remedy("swapped", "blur3", "all strides", ("a",))
TUNED = Remedy("fine_tuned", "blur3", "all strides", ("a",))
AVERAGED = Remedy("averaged", window=2)


def chosen(*trials: Trial) -> str:
    found = outcomes_of([AS_IS, *trials], None)
    best = choose(found, None, labelled=True)
    return "" if best is None else best.name


def test_a_remedy_that_removes_flips_and_keeps_accuracy_is_taken() -> None:
    assert chosen(trial(BLUR, 0.1, 0.8)) == BLUR.name


@pytest.mark.parametrize(("flips", "right"), [(0.2, 0.8), (0.25, 0.9), (0.1, 0.7), (0.195, 0.8)])
def test_nothing_is_taken_without_a_clear_gain_or_at_the_price_of_accuracy(flips: float, right: float) -> None:
    assert chosen(trial(BLUR, flips, right)) == ""


def test_the_most_stable_is_taken_and_of_equals_the_fastest() -> None:
    slow, fast, tuned = trial(AVERAGED, 0.05, 0.8, 4.0), trial(BLUR, 0.1, 0.8), trial(TUNED, 0.05, 0.8, 1.2, seeds=3)
    assert chosen(slow, fast) == AVERAGED.name
    assert chosen(slow, fast, tuned) == TUNED.name


def test_dominated_remedies_are_told() -> None:
    found = outcomes_of(
        [AS_IS, trial(BLUR, 0.1, 0.8, 1.2), trial(TUNED, 0.05, 0.82, 1.2), trial(AVERAGED, 0.05, 0.82, 4)], None
    )
    assert [one.dominated_by for one in found] == ["", TUNED.name, "", TUNED.name]


def test_a_change_of_a_share_is_at_most_one() -> None:
    """Two seeds that differ, many remedies: the interval of two seeds alone would be several times as wide."""
    first, second = trial(TUNED, 0.15, 0.8), trial(TUNED, 0.1, 0.8)
    differing = Trial(TUNED, [*first.tables, *second.tables], first.time)
    change = outcomes_of([AS_IS, *[differing] * 4], None)[1].flips_change
    assert change is not None
    assert (change.low, change.high) == (-1.0, 1.0)
    assert change.mean == pytest.approx(-0.075)


def test_differences_are_paired_and_corrected_for_their_number() -> None:
    # The same images flip in both, but for 5 % of them.
    one = outcomes_of([AS_IS, trial(BLUR, 0.15, 0.8)], None)[1].flips_change
    assert one is not None
    assert one.mean == pytest.approx(-0.05)
    # Half of alpha for each of two differences.
    exact = stats.binom(IMAGES, 0.05).ppf([0.0125, 0.9875]) / IMAGES
    assert (-one.high, -one.low) == pytest.approx(tuple(exact), abs=0.005)
    many = outcomes_of([AS_IS, *(trial(BLUR, 0.15, 0.8) for _ in range(10))], None)[1].flips_change
    assert many is not None
    assert many.low < one.low
    assert many.high > one.high


def test_the_answer_is_in_sentences() -> None:
    found = outcomes_of([AS_IS, trial(BLUR, 0.1, 0.8), trial(TUNED, 0.02, 0.85, 1.3)], None)
    first, now, without = sentences_of(found, choose(found, None, labelled=True), labelled=True)
    assert first.startswith("Take: blur3 at all strides, fine-tuned.")
    assert "to 2.0 %" in first
    assert "An answer takes 1.30 times as long." in first
    assert now.startswith("As it is, 20.0 %")
    assert without.startswith("Without training: blur3 at all strides, weights kept.")
    alone = outcomes_of([AS_IS], None)
    assert sentences_of(alone, None, labelled=False)[0] == "No remedy was tried."
    useless = outcomes_of([AS_IS, trial(BLUR, 0.2, 0.8)], None)
    assert sentences_of(useless, None, labelled=False)[0] == "Leave it as it is."


def test_a_high_price_comes_before_the_gain() -> None:
    found = outcomes_of([AS_IS, trial(AVERAGED, 0.02, 0.8, 5.5), trial(BLUR, 0.1, 0.8)], None)
    first, *_, last = sentences_of(found, choose(found, None, labelled=True), labelled=True)
    assert first.index("5.5 times as long") < first.index("share of steps")
    assert last.startswith("Without much more time: blur3")


@pytest.mark.parametrize("images", [10, 60, 100, 200])
def test_few_images_rule_nothing_out(images: int) -> None:
    """No image gets worse, and yet a loss of a point cannot be excluded."""

    def few(remedy: Remedy, flips: float) -> Trial:
        table = pd.DataFrame({"flips": np.full(images, flips), "right": np.ones(images)})
        return Trial(remedy, [table], AS_IS.time)

    before, after = outcomes_of([few(AS_IT_IS, 0.5), few(BLUR, 0.1)], None)
    assert after.right_change is not None
    # The rule of three: half of alpha for the sum of both sides, half for each of two differences.
    assert -after.right_change.low == pytest.approx(1 - 0.0125 ** (1 / images))
    assert not after.keeps_accuracy
    assert choose([before, after], None, labelled=True) is None
    assert choose([before, after], None, labelled=False) is after


def test_a_loss_is_ruled_out_as_rarely_as_promised() -> None:
    generator, wrong = np.random.default_rng(0), 0
    for _ in range(300):
        right = generator.random(60) < 0.8
        table = pd.DataFrame({"flips": np.full(60, 0.5), "right": right * 1.0})
        # A true loss of two points.
        worse = pd.DataFrame({"flips": np.full(60, 0.1), "right": (right & (generator.random(60) > 0.025)) * 1.0})
        _, after = outcomes_of([Trial(AS_IT_IS, [table], AS_IS.time), Trial(BLUR, [worse], AS_IS.time)], None)
        wrong += after.keeps_accuracy
    assert wrong <= 300 * 0.025 + 5


def test_a_dominated_remedy_is_not_taken() -> None:
    tuned = trial(TUNED, 0.0995, 0.9)
    assert chosen(trial(BLUR, 0.1, 0.8), tuned) == TUNED.name


def test_the_interval_for_a_planned_number_of_seeds_is_that_of_student() -> None:
    # Without a part of the images.
    values = np.array([0.1, 0.4, 0.2])
    block = np.repeat(values[:, None], 50, axis=1)
    found = crossed_estimate([block]).planned_interval()
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_the_interval_over_seeds_and_images_covers() -> None:
    generator, hits = np.random.default_rng(0), 0
    for _ in range(400):
        block = (
            generator.normal(0, 1, (3, 1)) / 10 + generator.normal(0, 1, (1, 100)) + generator.normal(0, 1, (3, 100))
        )
        found = crossed_estimate([block]).planned_interval()
        hits += found.low < 0 < found.high
    assert 0.92 <= hits / 400 <= 1.0


def effect(path: str, removed: Sequence[float] | None) -> SiteEffect:
    interval = None if removed is None else Interval(removed[0], removed[1], removed[2], 50)
    return SiteEffect(
        path, "strided convolution", 2, 8, 4, 0.1, 0.1, removed=interval, refused="" if removed else "why"
    )


def test_the_worst_strides_are_those_with_a_clear_effect() -> None:
    effects = [
        effect("a", (0.1, 0.05, 0.2)),
        effect("b", (0.3, 0.2, 0.4)),
        effect("c", (0.2, 0.1, 0.3)),
        effect("d", None),
    ]
    assert worst_sites(effects) == ("b", "c")
    assert worst_sites([effect("a", (0.1, -0.1, 0.2)), effect("b", (0.2, -0.1, 0.4))]) == ("b",)
    assert worst_sites([]) == ()


def test_what_is_tried_depends_on_what_is_possible() -> None:
    effects = [effect("stem", (0.1, 0.05, 0.2)), effect("b", (0.3, 0.2, 0.4)), effect("d", None)]
    stem = frozenset({"stem"})
    everything = remedies(effects, stem, ["blur3"], Possible(batch_norm=True, labels=True, margin=5))
    assert everything[0] == AS_IT_IS
    assert len(set(everything)) == len(everything)
    assert {one.where for one in everything if one.pool} == {"all strides", "all but the stem"}
    assert Remedy("fine_tuned") in everything
    assert {one.window for one in everything} == {0, 2, 3}
    least = remedies(effects, stem, ["blur3"], Possible(batch_norm=False, labels=False, margin=2))
    assert {one.kind for one in least} == {"none", "swapped"}
    assert remedies([], frozenset(), ["blur3"], Possible(True, False, 2)) == [AS_IT_IS]
