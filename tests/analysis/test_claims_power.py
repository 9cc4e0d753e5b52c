"""The power calculation of claims: benchmarks/claims/power.py against known medians."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from poolbench.analysis.claims import Verdict
from poolbench.analysis.statistics import Estimate
from poolbench.claim import Claim

PATH = Path(__file__).parents[2] / "benchmarks" / "claims" / "power.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    if not PATH.is_file():
        pytest.skip(f"the script is not here: {PATH}")
    spec = importlib.util.spec_from_file_location("claims_power", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def verdict(effect: float, images: float = 0.0, margin: float = 0.0) -> Verdict:
    """Return a verdict of five seeds, with a deviation of 1 between seeds and of ``images`` by the choice of images."""
    claim = Claim("planted", "", "", "accuracy", target=0.0)
    return Verdict(claim, "undecided", None, margin=margin, estimate=Estimate(effect, 1 / 5, images**2, 100, 5))


@pytest.mark.parametrize(("effect", "median"), [(0.5, 40), (1.0, 12), (2.0, 6)])
def test_half_of_the_claims_are_decided_after_the_median_number_of_seeds(
    script: ModuleType, effect: float, median: int
) -> None:
    generator = np.random.default_rng(0)
    # At the median number, half of the sequences have been decided at some look; a single look sees fewer.
    assert 0.3 < script.power(verdict(effect), median, generator) < 0.65
    assert script.power(verdict(effect), 2 * median, generator) > 0.8


def test_nothing_is_rarely_decided_and_a_wide_margin_decides_it(script: ModuleType) -> None:
    generator = np.random.default_rng(0)
    assert script.power(verdict(0.0), 8, generator) < 0.05
    assert script.power(verdict(0.0, margin=3.0), 20, generator) > 0.99


def test_no_number_of_seeds_makes_up_for_few_images(script: ModuleType) -> None:
    generator = np.random.default_rng(0)
    assert script.power(verdict(1.0, images=1.0), 200, generator) < 0.05
    # Ten images of a share leave room for a third of other ones.
    found = verdict(0.1)
    assert found.estimate is not None
    few = replace(found, estimate=replace(found.estimate, seeds_part=1e-6, images=10, largest=1.0))
    assert script.power(few, 8, generator) == 0
