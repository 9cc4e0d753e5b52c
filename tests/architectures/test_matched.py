"""Fair comparisons: networks of equal size, and pools beside those whose place they take."""

from __future__ import annotations

from collections import defaultdict

import pytest

from poolbench.architectures.matched import matched_width, parameter_count
from poolbench.core import Component, UsageError
from poolbench.runner.plan import PRESETS, Selection, plan

SHAPES = ("shape_net", (1, 64, 64), 2)
LEARNED = ("strided_conv", "space_to_depth", "lip", "lps", "max_lps", "gated", "gem_local", "mixed")


def test_counts_are_those_of_the_sum_over_layers() -> None:
    # 3x3 convolutions 1-3-3-1, and a 3x3 convolution of 3 channels per pool.
    assert parameter_count(*SHAPES, "max", num_pooling=2) == 142
    assert parameter_count(*SHAPES, "strided_conv", num_pooling=2) == 142 + 2 * (81 + 3)


@pytest.mark.parametrize("pool", LEARNED)
@pytest.mark.parametrize(("architecture", "classes", "side"), [("shape_net", 2, 32), ("vgg_like", 10, 32)])
def test_no_width_comes_closer(architecture: str, classes: int, side: int, pool: str) -> None:
    wanted = parameter_count(architecture, (1, side, side), classes, pool, width=5)
    distances = [
        abs(parameter_count(architecture, (1, side, side), classes, "max", width=width) - wanted)
        for width in range(1, 15)
    ]
    found = matched_width(architecture, (1, side, side), classes, "max", wanted)
    assert distances[found - 1] == min(distances)
    assert matched_width(architecture, (1, side, side), classes, pool, wanted) == 5


def test_the_smallest_and_the_largest_network_bound_it() -> None:
    assert matched_width(*SHAPES, "max", 1) == 1
    with pytest.raises(UsageError, match=r"shape_net has fewer than 1,000,000,000 parameters up to a width of 4096"):
        matched_width(*SHAPES, "max", 10**9)
    with pytest.raises(UsageError, match="at least one parameter, got 0"):
        matched_width(*SHAPES, "max", 0)


def test_the_paper_preset_has_controls_as_large_as_the_networks_with_strided_convolutions() -> None:
    cells = [c for c in plan(Selection(("shift_robustness",), "paper", seeds=(0,))) if c.dataset.name == "shapes"]
    learned = [c for c in cells if c.pool.name == "strided_conv"]
    assert {c.pool.name for c in cells} & set(LEARNED) == {"strided_conv"}
    assert {c.architecture.options["num_pooling"] for c in learned} == {1, 2}
    for cell in learned:
        layers = cell.architecture.options["num_pooling"]
        (control,) = (
            c for c in cells if c.variant == "matched_width" and c.architecture.options["num_pooling"] == layers
        )
        assert control.pool == Component("max")
        size, wanted = (
            parameter_count("shape_net", (1, 224, 224), 2, c.pool, **c.architecture.options)  # type: ignore[arg-type]
            for c in (control, cell)
        )
        assert wanted == pytest.approx(size, rel=0.05)
        assert control.architecture.options["width"] == matched_width(*SHAPES, "max", wanted, num_pooling=layers)


# The nightly preset compares a pool with itself.
@pytest.mark.parametrize("preset", [preset for preset in PRESETS if preset != "nightly"])
def test_pools_stand_beside_those_whose_place_they_take(preset: str) -> None:
    """A bare polyphase pool replaces a stride, one behind a dense maximum replaces max pooling."""
    compared: dict[tuple[object, ...], set[str]] = defaultdict(set)
    for cell in plan(Selection(("shift_robustness",), preset, seeds=(0,))):
        if cell.variant != "matched_width":
            options = tuple(cell.architecture.options.items())
            place = (cell.dataset, cell.architecture.name, options, cell.variant, cell.padding_mode)
            compared[place].add(cell.pool.name)
    assert any("max_aps" in names for names in compared.values())
    for names in compared.values():
        assert not names & {"aps", "lps"} or "decimate" in names
        if preset != "smoke":
            assert "max_aps" not in names or {"max", "max_blur3"} <= names
