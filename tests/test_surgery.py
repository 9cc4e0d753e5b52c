"""Replacement of pools in a module that is not timm's."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from poolbench.core import Component, UsageError
from poolbench.pooling import pooling_paths
from poolbench.surgery import GlobalPool, replace_pooling

SelectAdaptivePool2d = pytest.importorskip("timm.layers.adaptive_avgmax_pool").SelectAdaptivePool2d
MAX, AVG = Component("max"), Component("avg")


def small_network() -> nn.Sequential:
    """Return a network with a strided convolution, a pool, and a global pool: total stride 4."""
    torch.manual_seed(0)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(3, 4, 3, stride=2, padding=1),
        norm=nn.BatchNorm2d(4),
        pool=nn.MaxPool2d(2),
        same=nn.Conv2d(4, 4, 3, padding=1),
        still=nn.AvgPool2d(3, 1, 1),
        head=SelectAdaptivePool2d(pool_type="avg", flatten=True),
        linear=nn.Linear(4, 10),
    )
    return nn.Sequential(layers)


def test_downsamplings_and_the_global_pool_are_replaced_in_place() -> None:
    module = small_network().train()
    weight = module.get_submodule("conv").weight
    paths = replace_pooling(module, (3, 16, 16), Component("blur3"), Component("gem", {"p": 2.0}), "circular")
    assert paths == ["conv", "pool", "head"]
    assert module.training
    convolution, head = module.get_submodule("conv.conv"), module.get_submodule("head")
    assert isinstance(convolution, nn.Conv2d)
    assert (convolution.stride, convolution.padding_mode) == ((1, 1), "circular")
    assert torch.equal(convolution.weight, weight)  # type: ignore[arg-type]
    assert isinstance(head, GlobalPool)
    assert float(head.get_parameter("head.p").detach()) == 2
    assert {"conv.pool", "pool.0", "head.head"} <= pooling_paths(module)
    assert module(torch.rand(2, 3, 16, 16)).shape == (2, 10)


@pytest.mark.parametrize("size", [(16, 16), (17, 13)])
def test_decimate_and_the_original_pools_give_the_original_logits(size: tuple[int, int]) -> None:
    original, operated = small_network().eval(), small_network().eval()
    operated.pool = nn.Identity()
    original.pool = nn.Identity()
    replace_pooling(operated, (3, *size), Component("decimate"), AVG, "zeros")
    x = torch.rand(2, 3, *size)
    torch.testing.assert_close(operated(x), original(x))


def test_maps_are_cropped_where_the_original_floors() -> None:
    original, operated = small_network().eval(), small_network().eval()
    original.conv.stride = operated.conv.stride = (1, 1)  # type: ignore[assignment]
    replace_pooling(operated, (3, 7, 9), MAX, AVG, "zeros")
    x = torch.rand(2, 3, 7, 9)
    assert operated.pool(operated.norm(operated.conv(x))).shape == (2, 4, 3, 4)
    torch.testing.assert_close(operated(x), original(x))


def test_a_module_without_downsampling_is_an_error() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    with pytest.raises(UsageError, match="no strided convolution or pool that 'max' could replace"):
        replace_pooling(plain, (3, 32, 32), MAX, AVG, "zeros")


def test_a_module_without_a_global_pool_is_an_error() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.Flatten(), nn.Linear(4 * 49, 10))
    with pytest.raises(UsageError, match="no global pool that head 'avg' could replace"):
        replace_pooling(plain, (3, 16, 16), MAX, AVG, "zeros")


@pytest.mark.parametrize("pool", ["dense", "none"])
def test_a_pool_without_subsampling_is_an_error(pool: str) -> None:
    with pytest.raises(UsageError, match=f"pool '{pool}' cannot replace a downsampling"):
        replace_pooling(small_network(), (3, 16, 16), Component(pool), AVG, "zeros")


def test_images_that_the_module_does_not_take_are_an_error() -> None:
    module = small_network()
    with pytest.raises(UsageError, match=r"the model does not take images of \(1, 16, 16\)"):
        replace_pooling(module, (1, 16, 16), MAX, AVG, "zeros")
    assert not any(part._forward_hooks for part in module.modules())
