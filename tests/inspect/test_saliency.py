"""Saliency: against independent routes, on planted networks, and against random weights (Adebayo et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor, nn

from poolbench.inspect.inspection import saliency_maps
from poolbench.inspect.saliency import (
    METHODS,
    compared_positions,
    evidence,
    grad_cam,
    integrated_gradients,
    kept,
    moved,
    moved_back,
    occlusion,
    occlusion_stride,
    randomised,
    rank_correlation,
)
from poolbench.inspect.stages import Stage, find_stages
from poolbench.inspect.taps import Tap

LAST = Stage(Tap("3"), (6, 8, 8), True, True)


def small() -> nn.Sequential:
    """Conv, pool, conv with its last stage at "3", global average, linear: images (1, 16, 16) -> 3 logits."""
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 6, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU()
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)).eval()


def image(seed: int = 0) -> Tensor:
    return torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_integrated_gradients_of_a_linear_model_are_weights_times_input() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(2 * 5 * 4, 3)).requires_grad_(False)
    pixels = torch.rand(2, 5, 4)
    found, gap = integrated_gradients(network, pixels, 2)
    torch.testing.assert_close(found, (network[1].weight[2].view(2, 5, 4) * pixels).sum(0))
    assert gap < 1e-5


def test_integrated_gradients_are_the_mean_gradient_on_the_way_from_black() -> None:
    network, pixels = small(), image()
    found, gap = integrated_gradients(network, pixels, 1)
    steps = torch.linspace(0, 1, 2001)[:, None, None, None]
    path = (steps * pixels).requires_grad_()
    network(path)[:, 1].sum().backward()
    assert path.grad is not None
    by_hand = (path.grad.mean(0) * pixels).sum(0)
    assert float((found - by_hand).norm() / by_hand.norm()) < 0.1
    assert gap < 0.05


def test_occlusion_is_the_mean_loss_over_the_squares_that_cover_a_pixel() -> None:
    network, pixels = small(), image()
    stride = occlusion_stride(16)
    assert stride == 1
    sums, counts = torch.zeros(16, 16), torch.zeros(16, 16)
    with torch.no_grad():
        whole = network(pixels[None])[0, 2]
        for top in range(15):
            for left in range(15):
                covered = pixels.clone()
                covered[:, top : top + 2, left : left + 2] = 0
                sums[top : top + 2, left : left + 2] += whole - network(covered[None])[0, 2]
                counts[top : top + 2, left : left + 2] += 1
    torch.testing.assert_close(occlusion(network, pixels, 2), sums / counts, atol=1e-6, rtol=1e-4)


def test_grad_cam_is_the_sum_of_maps_weighted_by_their_mean_gradient() -> None:
    network, pixels = small(), image()
    maps = network[:4](pixels[None]).detach().requires_grad_()
    network[4:](maps)[0, 1].backward()
    assert maps.grad is not None
    weighted = F.relu((maps.grad.mean(dim=(2, 3), keepdim=True) * maps.detach()).sum(1, keepdim=True))
    by_hand = F.interpolate(weighted, (16, 16), mode="bilinear")[0, 0]
    torch.testing.assert_close(grad_cam(network, pixels, 1, LAST), by_hand, atol=1e-6, rtol=1e-4)
    assert float(by_hand.max()) > 0


class OnePixel(nn.Module):
    """The logit of class 1 is the pixel at row 11, column 4; nothing else counts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        self.relu = nn.ReLU()
        nn.init.ones_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        read = self.relu(self.conv(x))[:, 0, 11, 4]
        return torch.stack([torch.zeros_like(read), read], 1)


def test_saliency_is_on_the_pixel_that_is_read() -> None:
    pixels = image() + 0.1
    found, _ = saliency_maps(OnePixel(), pixels, 1, Stage(Tap("relu"), (1, 16, 16), True, True))
    gradients = found["integrated_gradients"]["original"]
    assert gradients.nonzero().tolist() == [[11, 4]]
    squares = found["occlusion"]["original"]
    assert (squares > 0).nonzero().tolist() == [[row, column] for row in (10, 11, 12) for column in (3, 4, 5)]
    assert squares.argmax() == 11 * 16 + 4
    # The head reads a place, so the map of a moved image, moved back, is elsewhere.
    there = moved_back(found["integrated_gradients"]["shift"][None, None], "shift")[0, 0]
    assert there.nonzero().tolist() == [[11, 3]]


def test_one_logit_is_evidence_for_class_1_and_against_class_0() -> None:
    logits = torch.tensor([[2.0], [-3.0]])
    assert evidence(logits, torch.tensor([1, 0])).tolist() == [2.0, 3.0]
    assert evidence(torch.tensor([[1.0, 5.0]]), torch.tensor([0])).tolist() == [1.0]


def test_what_is_moved_comes_back() -> None:
    pixels = F.avg_pool2d(torch.rand(1, 1, 36, 36), 5, 1)
    back = moved_back(moved(pixels, "shift"), "shift")
    assert torch.equal(back[..., :-1], pixels[..., :-1])
    assert float(moved(pixels, "shift")[..., 0].abs().max()) == 0
    turned = moved_back(moved(pixels, "turn"), "turn")[..., 8:24, 8:24]
    assert float((turned - pixels[..., 8:24, 8:24]).abs().max()) < 0.05


def test_rank_correlation_is_spearmans() -> None:
    first, second = torch.rand(9, 9).round(decimals=1), torch.rand(9, 9)
    inside = torch.rand(9, 9) > 0.3
    expected = spearmanr(first[inside], second[inside]).statistic
    assert rank_correlation(first, second, inside) == pytest.approx(expected)
    assert rank_correlation(first, torch.zeros(9, 9)) is None
    assert rank_correlation(first, torch.full((9, 9), float("nan"))) is None


def test_a_network_that_sees_every_place_alike_keeps_its_saliency_under_a_shift() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 6, 3, padding=1, padding_mode="circular", bias=False)
    network = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
    pixels = F.pad(torch.rand(1, 10, 10), (3, 3, 3, 3))
    found, _ = saliency_maps(network, pixels, 0, Stage(Tap("1"), (6, 16, 16), True, True))
    numbers = {method: kept(method, maps, None) for method, maps in found.items()}
    for method in METHODS:
        # Ranks of a plain background are those of rounding errors, which differ between CPUs.
        assert numbers[method].shift == pytest.approx(1.0, abs=0.02)
    turn, ceiling = numbers["occlusion"].turn, numbers["occlusion"].ceiling
    assert turn is not None
    assert ceiling is not None
    assert 0.8 < turn < 1.0
    assert ceiling > 0.9


# The randomisation test: what a network has learned must matter.


def bars(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return noisy images (n, 1, 16, 16) with one horizontal (class 0) or vertical (class 1) bar."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.4 * torch.rand(count, 1, 16, 16, generator=generator)
    labels = torch.arange(count) % 2
    places = torch.randint(3, 12, (count, 2), generator=generator).tolist()
    for index, (row, column) in enumerate(places):
        high, wide = ((2, 8), (8, 2))[int(labels[index])]
        images[index, 0, row - high // 2 : row + high // 2, column - wide // 2 : column + wide // 2] += 0.6
    return images, labels


@pytest.fixture(scope="module")
def trained() -> nn.Sequential:
    torch.manual_seed(1)
    layers = nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU()
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))
    images, labels = bars(256, 0)
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(80):
        optimiser.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimiser.step()
    images, labels = bars(200, 1)
    assert float((network.eval()(images).argmax(1) == labels).double().mean()) > 0.95
    return network.requires_grad_(False)


Map = Callable[[nn.Module, Tensor, int], Tensor]


def likeness(saliency: Map, network: nn.Module) -> float:
    """Return the mean rank correlation of saliency with and without the learned weights."""
    images, labels = bars(4, 2)
    found = []
    for seed in range(2):
        other = randomised(network, seed)
        for pixels, label in zip(images, labels.tolist(), strict=True):
            value = rank_correlation(saliency(network, pixels, label), saliency(other, pixels, label))
            found.append(0.0 if value is None else value)
    return fmean(found)


def edges(network: nn.Module, pixels: Tensor, decision: int) -> Tensor:
    """An edge detector that passes for saliency."""
    rows, columns = np.gradient(pixels[0].numpy())
    return torch.from_numpy(np.hypot(rows, columns))


def cam(network: nn.Module, pixels: Tensor, decision: int) -> Tensor:
    return grad_cam(network, pixels, decision, find_stages(network, (1, 16, 16))[-1])


MAPS: dict[str, Map] = {
    "integrated_gradients": lambda *given: integrated_gradients(*given)[0],
    "grad_cam": cam,
    "occlusion": occlusion,
}


@pytest.mark.parametrize("method", METHODS)
def test_saliency_falls_apart_with_random_weights(method: str, trained: nn.Sequential) -> None:
    saliency = MAPS[method]
    assert likeness(saliency, trained) < 0.5
    # It does not for slightly other weights: the maps themselves are no noise.
    near = randomised(trained, 0)
    near.load_state_dict({key: value * 1.01 for key, value in trained.state_dict().items()})
    pixels, label = bars(2, 2)[0][0], 0
    assert (rank_correlation(saliency(trained, pixels, label), saliency(near, pixels, label)) or 0) > 0.95


def test_an_edge_detector_fails_the_randomisation_test(trained: nn.Sequential) -> None:
    assert likeness(edges, trained) == pytest.approx(1.0)


def test_compared_positions_are_those_that_come_back() -> None:
    image = torch.rand(1, 1, 5, 7, generator=torch.Generator().manual_seed(2)) + 1
    back = moved_back(moved(image, "shift"), "shift")
    assert torch.equal(back == image, compared_positions((5, 7), "shift").expand_as(image))
