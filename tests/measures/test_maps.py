"""Dead and duplicate units, planted."""

from __future__ import annotations

import torch

from poolbench.measures.maps import dead_units, duplicate_units


def planted() -> torch.Tensor:
    """Units: 0 lives, 1 is negative, 2 constant, 3 copies 0, 4 copies 0 upside down, 5 lives, 6 copies 1."""
    maps = torch.randn(5, 7, 4, 3, generator=torch.Generator().manual_seed(0))
    maps[:, 1] = -maps[:, 1].abs() - 0.1
    maps[:, 2] = 2.0
    maps[:, 3] = 3 * maps[:, 0] + 1
    maps[:, 4] = 5 - maps[:, 0]
    maps[:, 6] = 2 * maps[:, 1]
    return maps


def test_units_that_are_never_above_0_or_constant_are_dead() -> None:
    assert dead_units(planted()).nonzero().flatten().tolist() == [1, 2, 6]


def test_a_unit_that_is_zero_at_all_but_one_position_lives() -> None:
    maps = torch.zeros(3, 2, 4, 4)
    maps[2, 1, 3, 0] = 1e-3
    assert dead_units(maps).tolist() == [True, False]


def test_copies_are_later_units_and_dead_ones_are_none() -> None:
    assert duplicate_units(planted()).nonzero().flatten().tolist() == [3, 4]


def test_the_threshold_bounds_the_correlation() -> None:
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(20, 2, 5, 5, generator=generator)
    maps[:, 1] = maps[:, 0] + 0.5 * torch.randn(20, 5, 5, generator=generator)
    pair = torch.corrcoef(maps.transpose(0, 1).flatten(1))[0, 1]
    assert duplicate_units(maps, float(pair) - 0.01).tolist() == [False, True]
    assert duplicate_units(maps, float(pair) + 0.01).tolist() == [False, False]


def test_maps_without_a_living_unit_have_no_copies() -> None:
    assert not duplicate_units(torch.zeros(2, 3, 2, 2)).any()
