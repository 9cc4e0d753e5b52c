"""Accuracy and consistency by angle, by hand."""

from __future__ import annotations

import torch

from poolbench.measures.rotation import (
    decisions_by_angle,
)


def test_decisions_against_the_angle() -> None:
    decisions = torch.tensor([[0, 1, 6, 9], [0, 0, 9, 9], [0, 1, 9, 6]])
    labels = torch.tensor([0, 1, 6, 9])
    names = [str(digit) for digit in range(10)]
    table = decisions_by_angle(decisions, labels, [0.0, 90.0, 180.0], names)
    whole = table[table["class"] == "all"]
    assert whole["accuracy"].tolist() == [1.0, 0.5, 0.5]
    assert whole["consistency"].tolist() == [1.0, 0.5, 0.5]
    assert whole["worst"].tolist() == [1.0, 0.5, 0.25]
    assert table[table["class"] == "6"]["accuracy"].tolist() == [1.0, 0.0, 0.0]
    assert sorted(table["class"].unique()) == ["0", "1", "6", "9", "all"]
    merged = decisions_by_angle(decisions, labels, [0.0, 90.0, 180.0], names, merged=(6, 9))
    assert merged[merged["class"] == "all"]["worst"].tolist() == [1.0, 0.75, 0.75]
    assert merged[merged["class"] == "6"]["consistency"].tolist() == [1.0, 1.0, 1.0]
    # The worst case grows with the distance, on both sides.
    both = decisions_by_angle(torch.tensor([[0], [1], [0], [1]]), torch.tensor([0]), [0.0, 90.0, 180.0, 270.0], names)
    assert both[both["class"] == "all"]["worst"].tolist() == [1.0, 0.0, 0.0, 0.0]
