"""The pictures: sizes in px on the axes, weights on their squares, one colour scale, numbers beside differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from poolbench.inspect.filters import SHOWN, named_filter
from poolbench.inspect.pool_figures import PICTURES, REACH, number
from poolbench.inspect.pools import PoolInspection, inspect_pools
from poolbench.registry import pools

NAMES = ("max", "dense", "gem_local", "aps")


@pytest.fixture(scope="module")
def found() -> PoolInspection:
    image = torch.rand(3, 60, 70, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    chosen = [pools.resolve(name) for name in NAMES]
    return inspect_pools(image, chosen, named_filter("rows"), lambda done, total: None)


@pytest.fixture(scope="module")
def figures(found: PoolInspection) -> dict[str, Figure]:
    return {picture.name: picture.draw(found) for picture in PICTURES}


def images(figure: Figure) -> dict[str, AxesImage]:
    """The images of a figure by the titles of their panels."""
    return {
        panel.get_title() or panel.get_title("left"): panel.images[0]
        for panel in figure.axes
        if panel.images and (panel.get_title() or panel.get_title("left"))
    }


def test_the_sequence_shows_that_pooling_halves_the_map(figures: dict[str, Figure]) -> None:
    widths = [round(np.ptp(panel.get_xlim())) for panel in figures["sequence"].axes if panel.images]
    assert widths == [70, *[3] * 4, *[68] * 8, *[34] * 4]
    titles = [panel.get_title() for panel in figures["sequence"].axes]
    assert titles.count("68 x 58 px") == 8
    assert titles.count("34 x 29 px") == 4
    assert "photograph\n70 x 60 px" in titles


def test_the_weights_stand_on_their_squares(figures: dict[str, Figure]) -> None:
    for panel in figures["sequence"].axes:
        if panel.get_title() in SHOWN:
            shown = {text.get_position(): float(text.get_text().replace("\N{MINUS SIGN}", "-")) for text in panel.texts}
            weights = named_filter(panel.get_title()).weights
            assert shown == {(x, y): weights[y][x] for y in range(3) for x in range(3)}


def test_all_pools_share_one_colour_scale_and_tell_their_size(figures: dict[str, Figure]) -> None:
    shown = images(figures["pools"])
    assert set(shown) == {
        "no pool\n60 x 50 px", "dense\n60 x 50 px", "max\n30 x 25 px", "gem_local *\n30 x 25 px", "aps\n30 x 25 px"
    }  # fmt: skip
    assert len({image.get_clim() for image in shown.values()}) == 1


def test_differences_share_one_colour_scale_and_have_their_number(
    figures: dict[str, Figure], found: PoolInspection
) -> None:
    panels = [panel for panel in figures["step"].axes if panel.images]
    titles = [panel.get_title("left") for panel in panels]
    assert titles == [
        title
        for one in found.maps
        for title in (
            f"{one.pool} *" if one.weights else one.pool,
            f"window {number(float(one.shown.size))}",
            f"torus {number(float(one.shown_circular.size))}",
        )
    ]
    differences = [panel for panel, title in zip(panels, titles, strict=True) if title.startswith(("window", "torus"))]
    assert {panel.images[0].get_clim() for panel in differences} == {(-REACH, REACH)}
    assert "torus 0" in titles


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (1e-13, "< 0.001"), (0.0006, "0.001"), (1.0598, "1.060"), (float("nan"), "nan")]
)
def test_only_an_exact_zero_is_written_as_0(value: float, text: str) -> None:
    assert number(value) == text
