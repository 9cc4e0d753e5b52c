"""Every architecture with every pool and head; published sizes and parameter counts."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from poolbench.architectures import create_model
from poolbench.core import UsageError
from poolbench.engine import initialise
from poolbench.pooling import list_heads, list_pools
from poolbench.registry import architectures

SMALL = {"shape_net": 3, "resnet18": 4}


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def build(name: str, pool: str = "max", head: str = "avg", padding_mode: str = "zeros") -> nn.Module:
    classes = 2 if name == "shape_net" else 10
    return create_model(name, (1, 28, 28), classes, pool, head, padding_mode, SMALL.get(name, 4))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", architectures.names())
def test_every_pool_and_head_fits_and_trains(name: str) -> None:
    outputs = 1 if name == "shape_net" else 10
    choices = [(pool, "avg") for pool in list_pools()] + [("max", head) for head in list_heads()]
    for pool, head in choices:
        model = build(name, pool, head)
        out = model(torch.rand(2, 1, 28, 28))
        assert out.shape == (2, outputs), (pool, head)
        out.square().sum().backward()
        assert all(p.grad is not None for p in model.parameters()), (pool, head)


@pytest.mark.parametrize("name", architectures.names())
def test_circular_padding_reaches_every_convolution(name: str) -> None:
    model = build(name, padding_mode="circular")
    modes = {m.padding_mode for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)}
    assert modes == {"circular"}


@pytest.mark.parametrize("name", architectures.names())
def test_networks_that_differ_in_their_pool_start_from_the_same_weights(name: str) -> None:
    first, second = build(name, "max"), build(name, "strided_conv")
    for model in (first, second):
        initialise(model, seed=5)
    shared = set(first.state_dict()) & set(second.state_dict())
    assert len(shared) >= len(first.state_dict()) - 2
    for key in shared:
        assert torch.equal(first.state_dict()[key], second.state_dict()[key]), key
    initialise(second, seed=6)
    weights = [key for key in shared if key.endswith("weight") and first.state_dict()[key].dim() > 1]
    assert not any(torch.equal(first.state_dict()[key], second.state_dict()[key]) for key in weights)


@pytest.mark.parametrize(
    ("name", "pool", "head", "published", "options"),
    [
        ("simple_conv", "max", "flatten", 0.54e6, {"width": 32, "hidden": 64}),
        ("all_convolutional", "decimate", "avg", 0.04e6, {"width": 16}),
        ("vgg_like", "max", "flatten", 0.30e6, {"width": 16, "hidden": 64}),
        ("resnet18", "decimate", "avg", 11.17e6, {"width": 64}),
    ],
)
def test_published_parameter_counts_on_mnist(
    name: str, pool: str, head: str, published: float, options: dict[str, int]
) -> None:
    model = create_model(name, (1, 28, 28), 10, pool, head, **options)  # type: ignore[arg-type]
    assert parameters(model) == pytest.approx(published, abs=0.5e4)


@pytest.mark.parametrize(
    ("name", "pool", "head", "published", "options"),
    [
        ("simple_conv", "max", "flatten", 2.65e6, {"width": 64, "hidden": 128}),
        ("all_convolutional", "decimate", "avg", 0.61e6, {"width": 64}),
        ("vgg_like", "max", "flatten", 4.95e6, {"width": 64, "hidden": 128}),
    ],
)
def test_published_parameter_counts_on_cifar10(
    name: str, pool: str, head: str, published: float, options: dict[str, int]
) -> None:
    model = create_model(name, (3, 32, 32), 10, pool, head, **options)  # type: ignore[arg-type]
    assert parameters(model) == pytest.approx(published, abs=1e4)


def test_fashion_convnet_has_the_maps_of_the_article() -> None:
    model = create_model("fashion_convnet", (1, 28, 28), 10)
    sizes: list[int] = []
    for name, module in model.named_children():
        if name.startswith("pool") or name == "class_maps":
            module.register_forward_hook(lambda m, i, out: sizes.append(out.shape[-1]))
    model(torch.rand(1, 1, 28, 28))
    assert sizes == [14, 7, 3, 3]
    # 3x3 convolutions 1-8-8-16-16-32-32 with biases, then 1x1 to ten maps.
    widths = [1, 8, 8, 16, 16, 32, 32]
    assert parameters(model) == sum(a * b * 9 + b for a, b in pairwise(widths)) + 32 * 10 + 10
    convolution = model.get_submodule("conv1a")
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.bias is not None
    assert torch.equal(convolution.bias, torch.full((8,), 0.01))


def test_a_sigmoid_ends_the_article_variant() -> None:
    out = create_model("fashion_convnet", (1, 28, 28), 10, sigmoid=True)(torch.randn(4, 1, 28, 28) * 9).detach()
    assert float(out.min()) > 0
    assert float(out.max()) < 1


def test_shape_net_has_the_convolutions_of_the_original() -> None:
    model = create_model("shape_net", (1, 32, 32), 2, "none", "avg", num_pooling=0)
    assert parameters(model) == (9 * 3 + 3) + (9 * 9 + 3) + (9 * 3 + 1)


def test_bad_arguments_are_answered() -> None:
    with pytest.raises(UsageError, match="did you mean 'simple_conv'"):
        create_model("simpleconv", (1, 28, 28), 10)
    with pytest.raises(UsageError, match="unknown head"):
        create_model("simple_conv", (1, 28, 28), 10, head="nothing")
    with pytest.raises(UsageError, match="has no such option"):
        create_model("simple_conv", (1, 28, 28), 10, depth=3)
    with pytest.raises(UsageError, match="cannot be halved"):
        create_model("vgg_like", (1, 8, 8), 10)
    with pytest.raises(UsageError, match="num_pooling is 0, 1 or 2"):
        create_model("shape_net", (1, 32, 32), 2, num_pooling=3)
