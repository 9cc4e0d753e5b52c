"""CKA against its definition."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from poolbench.core import UsageError
from poolbench.geometry import disc_mask, turns
from poolbench.measures.rotation import (
    rotated_cka,
)
from poolbench.measures.rotation.similarity import cka, u_centred

Images = Callable[..., Tensor]
Outputs = Callable[[nn.Module, Tensor], dict[str, Tensor]]


def hsic(first: Tensor, second: Tensor) -> float:
    """Unbiased HSIC of two Gram matrices by the formula of Song et al. 2012 (equation 5)."""
    n = len(first)
    ones = torch.ones(n, 1, dtype=first.dtype)
    k, m = (gram - torch.diag(gram.diagonal()) for gram in (first, second))
    total = (k @ m).trace() + (ones.T @ k @ ones) * (ones.T @ m @ ones) / ((n - 1) * (n - 2))
    total = total - 2 / (n - 2) * (ones.T @ k @ m @ ones)
    return float(total / (n * (n - 3)))


def hsic_by_quadruples(first: Tensor, second: Tensor) -> float:
    """The same as the mean of the kernel of the U statistic over all ordered quadruples of different images."""
    values = []
    for i, j, q, r in itertools.permutations(range(len(first)), 4):
        values.append(float(first[i, j] * (second[i, j] + second[q, r] - 2 * second[i, q])))
    return sum(values) / len(values)


def test_cka_against_its_definition(small_network: nn.Module, images: Images, outputs: Outputs) -> None:
    model, x = small_network, images(7, 12)
    found = rotated_cka(model, x, [0.0, 90.0, 40.0]).set_index(["layer", "angle"])["CKA"]
    assert found.xs(0.0, level="angle").dropna().to_numpy() == pytest.approx(1)
    mask = disc_mask((12, 12))
    for layer in ("conv1", "relu4"):
        first, second = (outputs(model, turns(x, [angle])[0] * mask)[layer].flatten(1) for angle in (0.0, 40.0))
        # Moved towards 0, which changes no estimate but keeps the digits of these nearly constant layers.
        first, second = first - first[0], second - second[0]
        k, m = first @ first.T, second @ second.T
        expected = hsic(k, m) / (hsic(k, k) * hsic(m, m)) ** 0.5
        assert found[layer, 40.0] == pytest.approx(expected, rel=1e-9)
        assert hsic_by_quadruples(k, m) == pytest.approx(hsic(k, m), rel=1e-6)
    # The mean over an image is invariant to rotation, so the similarity is 1.
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2)).double()
    assert rotated_cka(pooled, x, [90.0])["CKA"].iloc[0] == pytest.approx(1)


@pytest.mark.parametrize("features", [5, 2000])
def test_unrelated_features_have_no_similarity_however_many_they_are(features: int) -> None:
    generator = torch.Generator().manual_seed(0)
    values, biased = [], []
    for _ in range(40):
        first, second = torch.randn(2, 100, features, dtype=torch.float64, generator=generator)
        values.append(cka(u_centred(first @ first.T), u_centred(second @ second.T)))
        first, second = first - first.mean(dim=0), second - second.mean(dim=0)
        grams = first @ first.T, second @ second.T
        biased.append(float((grams[0] * grams[1]).sum() / (grams[0].norm() * grams[1].norm())))
    mean, error = torch.tensor(values).mean(), torch.tensor(values).std() / 40**0.5
    assert abs(float(mean)) < 3 * float(error)
    assert float(error) < 0.02
    # The plain estimator tells unrelated features from no others.
    assert features == 5 or min(biased) > 0.9


def test_the_null_is_what_other_images_give(small_network: nn.Module, images: Images) -> None:
    model, x = small_network, images(60, 12)
    found = rotated_cka(model, x, [0.0, 40.0])
    upright = found[(found["angle"] == 0) & found["CKA"].notna()]
    assert upright["CKA"].to_numpy() == pytest.approx(1)
    assert upright["null"].abs().max() < 0.15
    assert found["null"].notna().equals(found["CKA"].notna())


def test_a_constant_layer_has_no_similarity(images: Images) -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1)).double()
    nn.init.zeros_(model[0].weight)  # type: ignore[arg-type]
    nn.init.constant_(model[0].bias, 0.1)  # type: ignore[arg-type]
    assert rotated_cka(model, images(5), [40.0])[["CKA", "null"]].isna().all(axis=None)


def test_three_images_are_too_few(small_network: nn.Module, images: Images) -> None:
    with pytest.raises(UsageError, match="at least 4 images, got 3"):
        rotated_cka(small_network, images(3, 12), [0.0])
