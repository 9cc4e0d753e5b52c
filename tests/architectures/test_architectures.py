"""Every architecture with every pool and head; published sizes and parameter counts."""

from __future__ import annotations

import itertools
from itertools import pairwise
from math import log

import pytest
import torch
from torch import Tensor, nn

from poolbench.architectures import create_model
from poolbench.core import Cell, Component, TrainConfig, UsageError
from poolbench.data import Split, images_dataset
from poolbench.declared import Entry
from poolbench.engine import build_model, initialise
from poolbench.measures.shift import exact_consistency
from poolbench.pooling import Pool, list_heads, list_pools, pooling_paths
from poolbench.pooling.padding import PaddingMode
from poolbench.registry import architectures, heads, pools

SMALL = {"shape_net": 3, "resnet18": 4}


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def build(name: str, pool: str = "max", head: str = "avg", padding_mode: str = "zeros", side: int = 28) -> nn.Module:
    classes = 2 if name == "shape_net" else 10
    return create_model(name, (1, side, side), classes, pool, head, padding_mode, SMALL.get(name, 4))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", architectures.names())
def test_every_pool_and_head_fits_and_trains(name: str) -> None:
    outputs = 1 if name == "shape_net" else 10
    choices = [(pool, "avg") for pool in list_pools()] + [("max", head) for head in list_heads()]
    for pool, head in choices:
        # 32 halves evenly as often as the networks halve: the polyphase pools take no odd sides.
        model = build(name, pool, head, side=32)
        out = model(torch.rand(2, 1, 32, 32))
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


EXACT = ["aps", "aps_blur3", "lps", "max_aps", "max_aps_blur3", "max_lps", "dense"]


def trained(model: nn.Module, steps: int) -> nn.Module:
    """Return the model after a few steps on random images, with changed weights and BatchNorm statistics."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model.train()
    for _ in range(steps):
        x = torch.rand(8, 3, 32, 32, dtype=torch.float64, generator=generator)
        loss = nn.functional.cross_entropy(model(x), torch.randint(0, 10, (8,), generator=generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("steps", [0, 5])
@pytest.mark.parametrize("pool", EXACT)
@pytest.mark.parametrize("name", ["resnet20", "vgg_like"])
def test_polyphase_and_dense_networks_are_exactly_consistent(name: str, pool: str, steps: int) -> None:
    torch.manual_seed(1)
    model = trained(create_model(name, (3, 32, 32), 10, pool, "avg", "circular", width=4).double(), steps)
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    stride = 4 if name == "resnet20" else 16
    with torch.no_grad():
        expected = model(images)
        assert float(expected.std()) > 1e-3, "constant logits would be consistent for any pool"
        for shift in itertools.product(range(0, stride, 1 if stride == 4 else 3), range(0, 32, 5)):
            torch.testing.assert_close(model(torch.roll(images, shift, dims=(-2, -1))), expected, rtol=0, atol=1e-9)
    found = exact_consistency(model, images, torch.zeros(2, dtype=torch.int64), total_stride=4)
    assert (found.consistency, found.corrected) == (1, 1)


@pytest.mark.parametrize("name", ["resnet20", "vgg_like"])
def test_max_pooling_is_not_consistent(name: str) -> None:
    torch.manual_seed(1)
    model = create_model(name, (3, 32, 32), 10, "max", "avg", "circular", width=4).double().eval()
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        assert float((model(torch.roll(images, 1, dims=-1)) - model(images)).abs().max()) > 1e-6


def test_single_precision_stays_within_rounding() -> None:
    torch.manual_seed(1)
    model = create_model("resnet20", (3, 32, 32), 10, "aps", "avg", "circular", width=4).eval()
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        expected = model(images)
        worst = max(
            float((model(torch.roll(images, shift, dims=(-2, -1))) - expected).abs().max())
            for shift in itertools.product(range(4), range(4))
        )
    assert worst <= 3e-6 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("pool", ["aps", "aps_blur3", "lps", "max_aps", "max_aps_blur3", "max_lps"])
def test_an_odd_map_is_an_error_and_not_a_silent_loss(pool: str) -> None:
    model = create_model("resnet18", (1, 28, 28), 10, pool, "avg", "circular", width=4)
    with pytest.raises(UsageError, match=rf"pool '{pool}' needs a map whose sides .* got 7x7"):
        model(torch.rand(2, 1, 28, 28))


def test_pool_dense_dilates_later_convolutions_and_keeps_the_receptive_field() -> None:
    dilated = create_model("vgg_like", (1, 32, 32), 10, "dense", "avg", "circular", width=4)
    dilations = [m.dilation[0] for m in dilated.modules() if isinstance(m, nn.Conv2d)]
    assert dilations == [1, 1, 2, 2, 4, 4, 8, 8]
    torch.manual_seed(1)
    dilated = create_model("all_convolutional", (1, 32, 32), 10, "dense", "avg", "circular", width=4).eval()
    torch.manual_seed(1)
    strided = create_model("all_convolutional", (1, 32, 32), 10, "decimate", "avg", "circular", width=4).eval()
    x = torch.rand(1, 1, 32, 32)
    maps: list[Tensor] = []
    for model in (dilated, strided):
        model.get_submodule("class_maps").register_forward_hook(lambda m, i, out: maps.append(out))
        model(x)
    torch.testing.assert_close(maps[0][..., ::4, ::4], maps[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "published"), [("resnet20", 0.27e6), ("resnet50", 23.52e6)])
def test_published_parameter_counts_of_residual_networks(name: str, published: float) -> None:
    model = create_model(name, (3, 32, 32), 10, "decimate", "avg")
    assert parameters(model) == pytest.approx(published, rel=0.02)


def test_strided_net_halves_five_times() -> None:
    model = create_model("strided_net", (3, 32, 32), 10, "decimate", "avg")
    widths = [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert widths == [16, 32, 64, 128, 256]
    sizes: list[int] = []
    for block in range(1, 6):
        model.get_submodule(f"pool{block}").register_forward_hook(lambda m, i, out: sizes.append(out.shape[-1]))
    model(torch.rand(2, 3, 32, 32))
    assert sizes == [16, 8, 4, 2, 1]


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


def fashion(head: str, head_on: str) -> nn.Module:
    """Return fashion_convnet in float64; equal seeds give equal weights of the parts that are shared."""
    model = create_model("fashion_convnet", (1, 28, 28), 10, "max", head, head_on=head_on).double()
    initialise(model, seed=1)
    return model


def test_a_head_on_features_with_avg_is_the_network_with_class_maps() -> None:
    # The mean and the linear layer commute.
    maps, features = fashion("avg", "class_maps"), fashion("avg", "features")
    assert parameters(maps) == parameters(features)
    with torch.no_grad():
        features.get_parameter("linear.weight").copy_(maps.get_parameter("class_maps.weight")[:, :, 0, 0])
        features.get_parameter("linear.bias").copy_(maps.get_parameter("class_maps.bias"))
    x = torch.rand(3, 1, 28, 28, dtype=torch.float64)
    torch.testing.assert_close(features(x), maps(x))


@pytest.mark.parametrize("head", list_heads())
def test_heads_on_features_get_values_that_are_not_negative(head: str) -> None:
    seen: dict[str, Tensor] = {}
    for head_on, path in (("class_maps", "classifier.head"), ("features", "head")):
        model = fashion(head, head_on)
        model.get_submodule(path).register_forward_hook(lambda m, i, out, on=head_on: seen.update({on: i[0].detach()}))
        assert model(torch.randn(8, 1, 28, 28, dtype=torch.float64)).shape == (8, 10)
    assert seen["features"].shape == (8, 32, 3, 3)
    assert float(seen["features"].min()) >= 0
    assert float((seen["class_maps"] < 0).double().mean()) > 0.1


def test_linear_layers_on_features_start_as_the_class_maps_do() -> None:
    model = fashion("max", "features")
    bias = model.get_parameter("linear.bias")
    assert torch.equal(bias, torch.full_like(bias, 0.01))
    # Xavier: uniform in +-sqrt(6 / (32 + 10)).
    largest = float(model.get_parameter("linear.weight").detach().abs().max())
    assert 0.9 * (6 / 42) ** 0.5 < largest <= (6 / 42) ** 0.5


def test_all_convolutional_with_a_padded_1x1_ends_at_9x9() -> None:
    published = create_model("all_convolutional", (1, 28, 28), 10, "decimate", width=4, padded_1x1=True).double()
    tight = create_model("all_convolutional", (1, 28, 28), 10, "decimate", width=4).double()
    assert parameters(published) == parameters(tight)
    tight.load_state_dict(published.state_dict())
    sizes: list[int] = []
    for model in (published.eval(), tight.eval()):
        model.get_submodule("class_maps").register_forward_hook(lambda m, i, out: sizes.append(out.shape[-1]))
    x = torch.rand(2, 1, 28, 28, dtype=torch.float64)
    out = published(x)
    features: list[Tensor] = []
    tight.get_submodule("relu8").register_forward_hook(lambda m, i, out: features.append(out))
    tight(x)
    assert sizes == [9, 7]
    # A zero through the 1x1 convolution is its bias: 32 of the 81 places hold one constant.
    bias = published.get_parameter("conv8.bias")[None, :, None, None].expand(2, -1, 1, 1)
    border = published.get_submodule("class_maps")(nn.functional.relu(published.get_submodule("norm8")(bias))).relu()
    inside = tight.get_submodule("class_maps")(features[0]).relu().sum((-2, -1))
    torch.testing.assert_close(out, (inside + 32 * border[..., 0, 0]) / 81)


def test_strided_net_as_published_is_a_stack_of_strided_convolutions() -> None:
    model = create_model("strided_net", (3, 32, 32), 10, "decimate", width=4, published=True, dropout=0.3).double()
    blocks: list[nn.Module] = []
    for channels, out in pairwise((3, 4, 8, 16, 32, 64)):
        convolution = nn.Conv2d(channels, out, 3, stride=2, padding=1, bias=False)
        blocks += [convolution, nn.BatchNorm2d(out), nn.ReLU(), nn.Dropout2d(0.3)]
    classifier = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)]
    plain = nn.Sequential(*blocks, *classifier).double()
    plain.load_state_dict(dict(zip(plain.state_dict(), model.state_dict().values(), strict=True)))
    x = torch.rand(4, 3, 32, 32, dtype=torch.float64)
    # In training, too: BatchNorm sees the halved maps, and dropout draws whole channels in the same order.
    for training in (True, False):
        outputs = []
        for network in (model.train(training), plain.train(training)):
            torch.manual_seed(0)
            outputs.append(network(x))
        torch.testing.assert_close(outputs[0], outputs[1])


def test_shape_net_has_the_convolutions_of_the_original() -> None:
    model = create_model("shape_net", (1, 32, 32), 2, "none", "avg", num_pooling=0)
    assert parameters(model) == (9 * 3 + 3) + (9 * 9 + 3) + (9 * 3 + 1)


def test_pools_and_heads_take_options() -> None:
    pool, head = Component("gem_local", {"p": 4.0}), Component("lse", {"r": 2.0})
    model = create_model("simple_conv", (1, 28, 28), 10, pool=pool, head=head)
    assert [float(model.get_parameter(f"pool{i}.p").detach()) for i in (2, 4)] == [4, 4]
    assert float(model.get_parameter("head.log_r").detach()) == pytest.approx(log(2))


def test_options_of_a_cell_reach_its_network() -> None:
    split = Split(torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.arange(4) % 2)
    cell = Cell(
        "b",
        Component("noise"),
        architectures.resolve("simple_conv", {"width": 4, "hidden": 5}),
        pools.resolve("gem_local", {"p": 4.0}),
        heads.resolve("top_k", {"k": 3}),
        "plain",
        0,
        TrainConfig(epochs=1),
    )
    network = build_model(cell, images_dataset("noise", ("0", "1"), split, split, "made here"), "cpu")
    assert network.get_parameter("network.fc1.weight").shape == (5, 16)
    assert float(network.get_parameter("network.pool2.p").detach()) == 4
    assert network.get_submodule("network.head").k == 3


def test_a_pool_that_keeps_its_size_dilates_whatever_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Same(Pool):
        keeps_size = True

        def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
            super().__init__()

        def forward(self, x: Tensor) -> Tensor:
            return x

    monkeypatch.setitem(pools._entries, "same", Entry("same", Same))
    model = build("simple_conv", "same")
    assert [m.dilation[0] for m in model.modules() if isinstance(m, nn.Conv2d)] == [1, 1, 2, 2, 4]
    assert "pool2" in pooling_paths(model)


def test_bad_arguments_are_answered() -> None:
    with pytest.raises(UsageError, match="unknown gem_local option 'power'"):
        create_model("simple_conv", (1, 28, 28), 10, pool=Component("gem_local", {"power": 4.0}))
    with pytest.raises(UsageError, match="option 'width' of architecture 'simple_conv' is of type int"):
        create_model("simple_conv", (1, 28, 28), 10, width=2.5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="did you mean 'simple_conv'"):
        create_model("simpleconv", (1, 28, 28), 10)
    with pytest.raises(UsageError, match="unknown head"):
        create_model("simple_conv", (1, 28, 28), 10, head="nothing")
    with pytest.raises(UsageError, match="unknown simple_conv option 'dpeth'"):
        create_model("simple_conv", (1, 28, 28), 10, dpeth=3)
    with pytest.raises(UsageError, match="cannot be halved"):
        create_model("vgg_like", (1, 8, 8), 10)
    with pytest.raises(UsageError, match="num_pooling is 0, 1 or 2"):
        create_model("shape_net", (1, 32, 32), 2, num_pooling=3)
