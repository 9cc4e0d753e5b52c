"""How often a claim would be decided with so many seeds, if its effect and its spread are those of a work folder."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import sqrt
from pathlib import Path

import numpy as np

from poolbench.analysis.claims import Verdict
from poolbench.analysis.statistics import anytime_reach, images_reach
from poolbench.decide import outlooks, questions
from poolbench.runner.ledger import Ledger
from poolbench.runner.plan import Selection, plan, protocol

SEEDS = (4, 5, 6, 8, 10, 12, 20)
TRIALS = 20_000


def power(verdict: Verdict, n: int, generator: np.random.Generator) -> float:
    """Return the probability that n seeds decide the claim: the interval excludes 0 or lies inside the margin.

    Means of seeds are drawn as normal with the mean and the deviation of the verdict's own; the part of the images is
    that of the verdict.
    """
    found = verdict.estimate
    assert found is not None
    draws = found.mean + sqrt(found.seeds_part * found.n) * generator.normal(size=(TRIALS, n))
    of_seeds = float(anytime_reach(n)) ** 2 * draws.var(axis=1, ddof=1) / n
    half = np.sqrt(of_seeds + float(images_reach(found, n)) ** 2)
    size = np.abs(draws.mean(axis=1))
    beyond = verdict.margin if verdict.claim.says == "equal" else 0.0
    return float(((size - half > beyond) | (size + half < verdict.margin)).mean())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("poolbench-out"), help="work folder (default: poolbench-out)")
    parser.add_argument("--preset", default="quick")
    given = parser.parse_args(arguments)
    selection = Selection(("all",), given.preset, seeds=(0,))
    asked = questions(plan(selection), protocol(selection))
    generator = np.random.default_rng(0)
    print("| claim | effect / deviation | seeds' deviation | images' error | " + " | ".join(map(str, SEEDS)) + " |")
    print("|---|--:|--:|--:|" + "--:|" * len(SEEDS))
    for outlook in outlooks(Ledger(given.out), asked):
        verdict, found = outlook.verdict, outlook.verdict.estimate
        if found is None or found.n < 2 or outlook.question.out_of_reach:
            continue
        deviation, images = sqrt(found.seeds_part * found.n), sqrt(found.fixed_part)
        relative = f"{found.mean / deviation:.2f}" if deviation else "-"
        chances = " | ".join(f"{power(verdict, n, generator):.2f}" for n in SEEDS)
        print(f"| {verdict.claim.name} | {relative} | {deviation:.4f} | {images:.4f} | {chances} |")


if __name__ == "__main__":
    main()
