"""Calibration by hand and by simulation."""

from __future__ import annotations

import pytest
import torch

from poolbench.measures.calibration import expected_calibration_error, reliability


def test_bins_and_error_by_hand() -> None:
    confidence = torch.tensor([0.35, 0.39, 0.95, 0.97, 1.0])
    correct = torch.tensor([True, False, True, True, False])
    table = reliability(confidence, correct, bins=10)
    assert table["n"].tolist() == [2, 3]
    assert table["low"].tolist() == pytest.approx([0.3, 0.9])
    assert table["accuracy"].tolist() == pytest.approx([0.5, 2 / 3])
    gaps = (2 * abs(0.5 - 0.37) + 3 * abs(2 / 3 - (0.95 + 0.97 + 1) / 3)) / 5
    assert expected_calibration_error(table) == pytest.approx(gaps)


def test_a_bin_includes_its_upper_bound() -> None:
    table = reliability(torch.tensor([0.2, 0.2001], dtype=torch.float64), torch.tensor([True, True]), bins=5)
    assert table["high"].tolist() == pytest.approx([0.2, 0.4])


def test_a_calibrated_network_has_a_small_error_and_an_overconfident_one_its_gap() -> None:
    generator = torch.Generator().manual_seed(0)
    confidence = 0.5 + 0.5 * torch.rand(50_000, generator=generator, dtype=torch.float64)
    drawn = torch.rand(50_000, generator=generator, dtype=torch.float64)
    assert expected_calibration_error(reliability(confidence, drawn < confidence)) < 0.01
    gap = expected_calibration_error(reliability(confidence, drawn < confidence - 0.2))
    assert gap == pytest.approx(0.2, abs=0.01)
