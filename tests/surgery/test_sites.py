"""Downsamplings are found where they are, by hand from the papers and the code of the networks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.core import Component, UsageError
from poolbench.surgery import Site, find_sites, replace_pooling

Build = Callable[[str], nn.Module]


def summary(sites: list[Site]) -> list[tuple[str, str, int]]:
    return [(site.path, site.kind, site.stride) for site in sites]


def test_sites_of_resnet18(build: Build) -> None:
    sites = find_sites(build("torchvision:resnet18"), (3, 64, 64))
    assert sites[:3] == [
        Site("conv1", "convolution", 2, (3, 64, 64), (64, 32, 32), True),
        Site("maxpool", "max_pool", 2, (64, 32, 32), (64, 16, 16), True),
        Site("layer2.0.conv1", "convolution", 2, (64, 16, 16), (128, 8, 8), False),
    ]
    assert summary(sites[3:]) == [
        ("layer2.0.downsample.0", "convolution", 2),
        ("layer3.0.conv1", "convolution", 2),
        ("layer3.0.downsample.0", "convolution", 2),
        ("layer4.0.conv1", "convolution", 2),
        ("layer4.0.downsample.0", "convolution", 2),
    ]


@pytest.mark.parametrize(
    ("name", "stem", "others"),
    [
        ("resnet18d", 2, 6),  # its shortcuts pool
        ("regnety_002", 1, 8),
        ("mobilenetv3_small_050", 1, 4),
        ("efficientnet_b0", 1, 4),
        ("densenet121", 2, 3),
        ("convnext_atto", 1, 3),
        ("vgg11", 0, 5),
        ("torchvision:mobilenet_v2", 1, 4),
    ],
)
def test_the_stem_ends_at_the_first_block(build: Build, name: str, stem: int, others: int) -> None:
    flags = [site.is_stem for site in find_sites(build(name), (3, 64, 64))]
    assert flags == [True] * stem + [False] * others


def test_a_vit_has_a_patch_embedding_only(build: Build) -> None:
    vit = build("vit_tiny_patch16_224")
    assert find_sites(vit, (3, 224, 224)) == [
        Site("patch_embed.proj", "patch_embedding", 16, (3, 224, 224), (192, 14, 14), True)
    ]
    with pytest.warns(
        UserWarning, match=r"replaced no downsampling: patch_embed\.proj: a patch embedding makes tokens"
    ):
        surgery = replace_pooling(vit, Component("blur3"), in_shape=(3, 224, 224))
    assert [one.path for one in surgery.left] == ["patch_embed.proj"]
    named = replace_pooling(vit, Component("decimate"), in_shape=(3, 224, 224), sites=["patch_embed.proj"])
    assert [one.at for one in named.replaced] == ["patch_embed.proj.pool"]
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(named.module(x), vit(x))


class Odd(nn.Module):
    """Downsamplings that no pool can replace, and one that it can."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Conv2d(3, 3, 3, stride=(2, 1), padding=1)
        self.twice = nn.Conv2d(3, 3, 3, stride=2, padding=1)
        self.once = nn.Conv2d(3, 3, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.once(self.twice(self.twice(self.rows(x))))
        return F.max_pool2d(x, 2).mean((-2, -1))


def test_what_cannot_be_replaced_is_listed_with_the_reason() -> None:
    surgery = replace_pooling(Odd(), Component("avg"), in_shape=(3, 64, 64))
    assert [one.site.path for one in surgery.replaced] == ["once"]
    reasons = {one.path: one.reason for one in surgery.left}
    assert reasons == {
        "rows": "its strides differ: 2 and 1",
        "twice": "it runs 2 times in a pass",
        "": "Odd calls max_pool2d in its own code: there is no layer to replace",
    }


def test_sites_can_be_chosen(build: Build) -> None:
    resnet = build("torchvision:resnet18")

    def replaced(**options: object) -> list[str]:
        surgery = replace_pooling(resnet, Component("blur3"), in_shape=(3, 64, 64), **options)  # type: ignore[arg-type]
        assert len(surgery.replaced) + len(surgery.left) == 8
        return [one.site.path for one in surgery.replaced]

    assert replaced(sites=2) == ["conv1", "maxpool"]
    assert replaced(sites=["maxpool", "layer4.0.conv1"]) == ["maxpool", "layer4.0.conv1"]
    assert replaced(sites="without_stem") == replaced(min_channels=128) == replaced()[2:]
    assert replaced(min_channels=512) == ["layer4.0.conv1", "layer4.0.downsample.0"]


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (["layer2.0.conv"], "no downsampling 'layer2.0.conv'; did you mean 'layer2.0.conv1'"),
        ("stem", "unknown sites 'stem'; give 'all', 'without_stem'"),
        (0, "at least 1; got 0"),
    ],
)
def test_sites_that_are_not_there_are_an_error(build: Build, sites: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace_pooling(
            build("torchvision:resnet18"),
            Component("blur3"),
            in_shape=(3, 64, 64),
            sites=sites,  # type: ignore[arg-type]
        )


def test_images_that_the_network_does_not_take_are_an_error() -> None:
    module = nn.Conv2d(3, 4, 3, stride=2).train()
    with pytest.raises(UsageError, match=r"the model does not take images of \(1, 16, 16\)"):
        find_sites(module, (1, 16, 16))
    assert not module._forward_hooks
    assert not module._forward_pre_hooks
    assert module.training
