"""Linear probes: classes that are linear in the maps are read, others are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poolbench.measures.probes import PENALTIES, gridded, probe_accuracy


def test_features_are_the_maps_averaged_to_two_by_two() -> None:
    maps = torch.arange(32.0).view(1, 2, 4, 4)
    quarters = [[2.5, 4.5, 10.5, 12.5], [18.5, 20.5, 26.5, 28.5]]
    assert gridded(maps).tolist() == [quarters[0] + quarters[1]]


def test_a_class_in_one_unit_is_read_and_noise_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    labels, new_labels = (torch.randint(0, 3, (n,), generator=generator) for n in (150, 2000))
    noise, new_noise = (torch.randn(len(found), 6, generator=generator) for found in (labels, new_labels))
    features, new_features = noise.clone(), new_noise.clone()
    features[:, 2] += 20 * (labels == 1)
    features[:, 4] += 20 * (labels == 2)
    new_features[:, 2] += 20 * (new_labels == 1)
    new_features[:, 4] += 20 * (new_labels == 2)
    assert probe_accuracy(features, labels, new_features, new_labels) > 0.99
    assert probe_accuracy(noise, labels, new_noise, new_labels) == pytest.approx(1 / 3, abs=0.05)


def test_a_unit_that_is_dead_in_the_fitted_images_is_no_error() -> None:
    features = torch.tensor([[0.0, 1.0], [0.0, -1.0]] * 10)
    labels = torch.tensor([0, 1] * 10)
    assert probe_accuracy(features, labels, torch.tensor([[5.0, 1.0]]), torch.tensor([0])) == 1.0


def test_the_probe_is_the_ridge_regression_with_the_least_error_of_leaving_one_out() -> None:
    generator = torch.Generator().manual_seed(3)
    labels, new_labels = (torch.randint(0, 2, (n,), generator=generator) for n in (40, 300))
    features, new = (torch.randn(len(found), 8, generator=generator) for found in (labels, new_labels))
    features[:, 0] += labels
    new[:, 0] += new_labels
    x, mean, std = features.double().numpy(), features.double().mean(0).numpy(), features.double().std(0, False).numpy()
    x, y = (x - mean) / std, 2.0 * labels.numpy() - 1

    def fitted(rows: np.ndarray, values: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
        centre, level = rows.mean(0), values.mean()
        a = rows - centre
        slope = np.linalg.solve(a.T @ a + penalty * np.eye(a.shape[1]), a.T @ (values - level))
        return slope, level - centre @ slope

    def error(penalty: float) -> float:
        total = 0.0
        for left in range(len(y)):
            slope, level = fitted(np.delete(x, left, 0), np.delete(y, left), penalty)
            total += (y[left] - x[left] @ slope - level) ** 2
        return total

    slope, level = fitted(x, y, min(PENALTIES, key=error))
    decisions = ((new.double().numpy() - mean) / std) @ slope + level > 0
    expected = float((decisions == new_labels.numpy()).mean())
    assert probe_accuracy(features, labels, new, new_labels) == pytest.approx(expected)
