"""Class maps: which heads have them, that they are right, and planted ones whose mean and maximum disagree."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from poolbench.architectures import create_model
from poolbench.inspect.class_maps import ClassHead, answer, class_maps, find_class_head
from poolbench.inspect.taps import Tap


class Pooled(nn.Module):
    """Convolution, pool in the code, linear layer."""

    def __init__(self, pool: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc, self.pool = nn.Conv2d(1, 5, 3, padding=1), nn.Linear(5, 3), pool

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x)
        return self.fc(maps.mean(dim=(2, 3)) if self.pool == "avg" else maps.amax(dim=(2, 3)))


def images(count: int = 4, channels: int = 1, side: int = 8) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("pool", ["avg", "max"])
def test_a_pool_and_a_linear_layer(pool: str) -> None:
    network = Pooled(pool).eval()
    assert find_class_head(network, images()) == ClassHead(Tap("conv"), pool, "fc")


def test_the_mean_of_the_maps_is_the_logit_behind_an_average() -> None:
    network = Pooled("avg").eval()
    logits, maps = class_maps(network, ClassHead(Tap("conv"), "avg", "fc"), images())
    torch.testing.assert_close(maps.mean(dim=(2, 3)), logits.detach())
    # One value by hand.
    features = network.conv(images())[1, :, 2, 5]
    torch.testing.assert_close(maps[1, 2, 2, 5], (network.fc.weight[2] * features).sum() + network.fc.bias[2])


@pytest.mark.parametrize("head", ["avg", "max", "lse", "top_k"])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_networks_that_pool_class_maps(head: str, sigmoid: bool) -> None:
    torch.manual_seed(0)
    network = create_model("fashion_convnet", (1, 16, 16), 4, "max", head, sigmoid=sigmoid).eval()
    found = find_class_head(network, images(side=16))
    assert found == ClassHead(Tap("classifier.head", 0, "input"), head, None)
    logits, maps = class_maps(network, found, images(side=16))
    pooled = network.classifier.head(maps)
    torch.testing.assert_close(pooled.sigmoid() if sigmoid else pooled, logits)


def test_a_head_of_this_package_before_a_linear_layer() -> None:
    network = create_model("resnet20", (1, 16, 16), 3, "max", "gem", width=4).eval()
    assert find_class_head(network, images(side=16)) == ClassHead(
        Tap("classifier.head", 0, "input"), "gem", "classifier.linear"
    )


@pytest.mark.parametrize(
    ("name", "head"), [("simple_conv", "avg"), ("simple_conv", "flatten"), ("resnet20", "catavgmax")]
)
def test_other_heads_have_no_class_maps(name: str, head: str) -> None:
    network = create_model(name, (1, 16, 16), 3, "max", head, width=4).eval()
    assert find_class_head(network, images(side=16)) is None


class Planted(nn.Module):
    """Class maps are the channels of the image: class 0 has the larger mean, class 1 the larger maximum."""

    def __init__(self, pool: str) -> None:
        super().__init__()
        self.maps, self.pool = nn.Identity(), pool

    def forward(self, x: Tensor) -> Tensor:
        maps = self.maps(x)
        return maps.mean(dim=(2, 3)) if self.pool == "avg" else maps.amax(dim=(2, 3))


def planted_images() -> Tensor:
    found = torch.zeros(8, 2, 4, 4)
    found[:, 0] = 0.5
    found[:, 1, 0, 0] = 1.0
    return found


@pytest.mark.parametrize(("pool", "own", "other"), [("avg", 0, 1), ("max", 1, 0)])
def test_mean_and_maximum_disagree(pool: str, own: int, other: int) -> None:
    network, labels = Planted(pool).eval(), torch.full((8,), own)
    found = answer(network, ClassHead(Tap("maps"), pool, None), planted_images().split(3), labels)
    other_mean, other_gain = (found.by_max, found.max_gain) if pool == "avg" else (found.by_mean, found.mean_gain)
    assert found.images == 8
    assert found.own is not None
    assert other_mean is not None
    assert other_gain is not None
    assert (found.own.mean, other_mean.mean, other_gain.mean) == (1.0, 0.0, -1.0)
    assert (found.same_max if pool == "avg" else found.same_mean).mean == 0.0
    # Eight images leave room for others.
    assert found.own.low == pytest.approx(0.025 ** (1 / 8))
    swapped = answer(network, ClassHead(Tap("maps"), pool, None), planted_images().split(3), torch.full((8,), other))
    assert swapped.own is not None
    assert swapped.own.mean == 0.0


def test_without_labels_there_is_agreement_alone() -> None:
    found = answer(Planted("avg").eval(), ClassHead(Tap("maps"), "avg", None), [planted_images()], None)
    assert found.own is found.by_max is found.max_gain is None
    assert (found.same_mean.mean, found.same_max.mean, found.same_max.n) == (1.0, 0.0, 8)


def test_one_logit_decides_by_its_sign() -> None:
    torch.manual_seed(0)
    network = create_model("shape_net", (1, 16, 16), 2, "max", "avg").eval()
    batch = images(20, side=16)
    head = find_class_head(network, batch)
    assert head is not None
    assert head.linear is None
    logits, maps = class_maps(network, head, batch)
    found = answer(network, head, [batch], (maps.amax(dim=(2, 3))[:, 0] > 0).long())
    assert maps.shape[1] == logits.shape[1] == 1
    assert found.by_max is not None
    assert found.by_max.mean == 1.0
