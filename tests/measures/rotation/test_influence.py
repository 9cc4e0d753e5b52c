"""Standard errors of V against the bootstrap over images."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from poolbench.geometry import disc_mask, turns
from poolbench.measures.rotation import activation_variance, layer_means
from poolbench.measures.rotation.influence import Kept, influence
from poolbench.measures.rotation.moments import Moments, Workspace

Images = Callable[..., Tensor]
Outputs = Callable[[nn.Module, Tensor], dict[str, Tensor]]
ANGLES, COUNT = 8, 400


def activations(kind: str) -> Tensor:
    """Return activations (angles, images, 6) of one kind of unit: an image's level plus what its rotation adds."""
    generator = torch.Generator().manual_seed(0)
    level, turned = torch.randn(2, ANGLES, COUNT, 6, dtype=torch.float64, generator=generator)
    level = level[:1]
    if kind == "normal":
        return level + 0.5 * turned
    if kind == "sparse":
        # On for a tenth of the images, like a unit behind a ReLU.
        on = torch.rand(1, COUNT, 6, generator=generator) < 0.1
        return (on * (2 + level + 0.7 * turned)).clamp(min=0)
    # Heavy-tailed: images that excite a unit strongly also move it strongly.
    return level.exp() * (1 + 0.4 * turned)


def bootstrap(values: Tensor, statistic: Callable[[Tensor], Tensor], repeats: int = 800) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    found = [statistic(values[:, torch.randint(COUNT, (COUNT,), generator=generator)]) for _ in range(repeats)]
    return torch.stack(found).std(dim=0)


def ratio(values: Tensor) -> Tensor:
    return values.std(dim=0).mean(dim=0) / values.std(dim=1).mean(dim=0)


@pytest.mark.parametrize("kind", ["normal", "sparse", "heavy"])
def test_standard_errors_of_v_are_those_of_the_bootstrap(kind: str) -> None:
    values = activations(kind)
    moments = Moments(ANGLES, Workspace(), errors=True)
    for part in values.split(150, dim=1):
        moments.update(part)
    moments.close_class()
    found = moments.result([2, 4])
    units = found["V_se"] / bootstrap(values, ratio)
    assert float((units - 1).abs().mean()) < 0.15, units
    layers = bootstrap(values, lambda part: torch.stack([ratio(part)[:2].mean(), ratio(part)[2:].mean()]))
    torch.testing.assert_close(found["V_layer_se"][[0, 2]], layers, rtol=0.2, atol=0)


def test_influence_is_what_one_more_image_changes() -> None:
    values = activations("normal")[:, :40]
    found = influence(values, values.std(dim=0).mean(dim=0), values.mean(dim=1), values.std(dim=1, correction=0))

    def plain(part: Tensor, weights: Tensor) -> Tensor:
        """V of weighted images, with SV of ddof 0."""
        means = (weights[:, None] * part).sum(dim=1) / weights.sum()
        variance = (weights[:, None] * (part - means[:, None]).square()).sum(dim=1) / weights.sum()
        tv = (weights[:, None] * part.std(dim=0)).sum(dim=0) / weights.sum()
        return tv / variance.sqrt().mean(dim=0)

    for image in (0, 17):
        weights = torch.ones(40, dtype=torch.float64)
        before = plain(values, weights)
        weights[image] += 1e-5
        torch.testing.assert_close((plain(values, weights) - before) / 1e-5 * 40, found[image], rtol=1e-3, atol=1e-4)


def test_memory_for_standard_errors_is_bounded() -> None:
    values = torch.arange(100, dtype=torch.float64)[None, :, None].expand(2, 100, 3)
    kept = Kept(capacity=2 * 3 * 20)
    for part in values.split([7, 30, 1, 62], dim=1):
        kept.add(part)
    images = kept.units(slice(0, 3))[0, :, 0].tolist()
    assert kept.seen == 100
    assert images == [float(index) for index in range(0, 100, kept.step)]
    assert 5 < len(images) <= 20


def test_errors_of_layers_and_positions(small_network: nn.Module, images: Images, outputs: Outputs) -> None:
    x = images(80, 12) * torch.rand(80, 1, 1, 1, generator=torch.Generator().manual_seed(1))
    angles = [0.0, 50.0, 90.0, 200.0]
    units = activation_variance(small_network, x, angles, None)
    rows = units[(units["layer"] == "conv2") & (units["aggregation"] == "mean")]
    rotated = [outputs(small_network, turns(x, [angle])[0] * disc_mask((12, 12))) for angle in angles]
    values = torch.stack([output["conv2"].flatten(2).mean(2) for output in rotated])
    generator = torch.Generator().manual_seed(2)
    samples = [ratio(values[:, torch.randint(80, (80,), generator=generator)]) for _ in range(500)]
    spread = torch.stack(samples).std(dim=0)
    assert rows["V_se"].to_numpy() == pytest.approx(spread.numpy(), rel=0.2)
    layers = layer_means(units).set_index(["layer", "aggregation"])
    assert layers["V_se"]["conv2", "mean"] == pytest.approx(float(torch.stack(samples).mean(dim=1).std()), rel=0.2)
    assert units.loc[units["aggregation"] == "none", "V_se"].isna().all()
