"""What surgery makes of a network: by hand, against the original, and what it refuses."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.core import Component, UsageError
from poolbench.pooling import list_pools, pool_class, pooling_paths
from poolbench.pooling.padding import PaddingMode
from poolbench.recording import recorded
from poolbench.surgery import GlobalPool, Surgery, cost_of_surgery, find_sites, replace_pooling

Build = Callable[[str], nn.Module]
IN_SHAPE = (3, 64, 64)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def assert_same_logits(surgery: Surgery, original: nn.Module, size: int = 64) -> None:
    x = noise(2, 3, size, size)
    with torch.no_grad():
        expected = original(x)
        assert float((surgery.module(x) - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def blur(x: Tensor, mode: str) -> Tensor:
    """Zhang's BlurPool: a binomial 3x3 filter with stride 2; it reflects where the network pads with zeros."""
    row = torch.tensor([1.0, 2.0, 1.0])
    kernel = (row[:, None] * row / 16).expand(x.shape[1], 1, 3, 3)
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect" if mode == "zeros" else mode)
    return F.conv2d(padded, kernel, stride=2, groups=x.shape[1])


def antialiased_resnet18(x: Tensor, state: dict[str, Tensor], mode: str) -> Tensor:
    """ResNet-18 of Zhang 2019 from the weights of a plain one: strides are 1, and a blur follows each ReLU."""

    def pad(x: Tensor, width: int) -> Tensor:
        return F.pad(x, (width,) * 4) if mode == "zeros" else F.pad(x, (width,) * 4, mode="circular")

    def conv(x: Tensor, name: str) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(pad(x, weight.shape[-1] // 2) if weight.shape[-1] > 1 else x, weight)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (
            state[f"{name}.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    x = blur(norm(conv(x, "conv1"), "bn1").relu(), mode)
    # The maximum keeps its 3x3 window; padding with zeros cannot win after a ReLU.
    x = blur(pad(x, 1).unfold(2, 3, 1).unfold(3, 3, 1).amax((-2, -1)), mode)
    for stage in (1, 2, 3, 4):
        for block in (f"layer{stage}.0", f"layer{stage}.1"):
            halves = f"{block}.downsample.0.weight" in state
            branch = norm(conv(x, f"{block}.conv1"), f"{block}.bn1").relu()
            branch = norm(conv(blur(branch, mode) if halves else branch, f"{block}.conv2"), f"{block}.bn2")
            shortcut = norm(conv(blur(x, mode), f"{block}.downsample.0"), f"{block}.downsample.1") if halves else x
            x = (branch + shortcut).relu()
    return x.mean((-2, -1)) @ state["fc.weight"].T + state["fc.bias"]


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("name", ["resnet18", "torchvision:resnet18"])
def test_an_antialiased_resnet18_by_hand(build: Build, name: str, mode: PaddingMode) -> None:
    resnet = build(name)
    surgery = replace_pooling(resnet, Component("max_blur3"), in_shape=IN_SHAPE, padding_mode=mode, sites=["maxpool"])
    (maximum,) = surgery.replaced
    assert (maximum.pool, maximum.at) == (Component("blur3"), "maxpool.pool")
    assert maximum.note == "the 3x3 maximum stays, with stride 1; 'blur3' is 'max_blur3' without its maximum"
    surgery = replace_pooling(resnet, Component("blur3"), in_shape=IN_SHAPE, padding_mode=mode)
    x = noise(2, *IN_SHAPE)
    with torch.no_grad():
        expected = antialiased_resnet18(x, resnet.state_dict(), mode)
        torch.testing.assert_close(surgery.module(x), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


# Max and average pools without overlap become the pool, so decimate changes networks that have any.
STRIDED = [
    *("resnet18", "skresnet18", "regnety_002", "mobilenetv3_small_050", "tf_efficientnet_b0", "convnext_atto"),
    *("torchvision:resnet18", "torchvision:mobilenet_v2"),
]


@pytest.mark.parametrize("placement", ["after_activation", "before_norm"])
@pytest.mark.parametrize("name", STRIDED)
def test_decimate_gives_the_original_back(build: Build, name: str, placement: str) -> None:
    original = build(name)
    for size in (64, 61):
        surgery = replace_pooling(
            original,
            Component("decimate"),
            in_shape=(3, size, size),
            placement=placement,  # type: ignore[arg-type]
        )
        assert [one.site for one in surgery.replaced] == find_sites(original, (3, size, size))
        assert_same_logits(surgery, original, size)


@pytest.mark.parametrize(("name", "pool"), [("vgg11", "max"), ("densenet121", "avg"), ("resnet18d", "decimate")])
def test_other_pools_that_give_the_original_back(build: Build, name: str, pool: str) -> None:
    original = build(name)
    kinds = {"max": "max_pool", "avg": "avg_pool", "decimate": "convolution"}
    paths = [site.path for site in find_sites(original, IN_SHAPE) if site.kind == kinds[pool]]
    assert len(paths) >= 3
    surgery = replace_pooling(original, Component(pool), in_shape=IN_SHAPE, sites=paths)
    assert [one.site.path for one in surgery.replaced] == paths
    assert_same_logits(surgery, original)


def test_a_pool_before_the_convolution() -> None:
    torch.manual_seed(0)
    original = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 1, stride=2))
    surgery = replace_pooling(original, Component("avg"), in_shape=(3, 16, 16), placement="before_convolution")
    assert [one.at for one in surgery.replaced] == ["0.pool", "2.pool"]
    first, second = original[0], original[2]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    x = noise(2, 3, 16, 16)
    hidden = F.conv2d(F.avg_pool2d(x, 2), first.weight, first.bias, padding=1).relu()
    expected = F.conv2d(F.avg_pool2d(hidden, 2), second.weight, second.bias)
    torch.testing.assert_close(surgery.module(x), expected)


@pytest.mark.parametrize("size", [64, 63])
@pytest.mark.parametrize("name", ["convnext_atto", "tf_efficientnet_b0", "resnet18d"])
def test_sizes_stay_in_every_place(build: Build, name: str, size: int) -> None:
    original = build(name)
    expected = [site.shape_out[1:] for site in find_sites(original, (3, size, size))]
    for placement in ("before_convolution", "before_norm", "after_activation"):
        for mode in ("circular", None):
            surgery = replace_pooling(
                original,
                Component("blur3"),
                in_shape=(3, size, size),
                placement=placement,  # type: ignore[arg-type]
                padding_mode=mode,  # type: ignore[arg-type]
            )
            at = [one.site.path if placement == "before_convolution" else one.at for one in surgery.replaced]
            sizes: list[tuple[int, int]] = []
            with recorded(surgery.module, at, lambda _, __, out, sizes=sizes: sizes.append(out.shape[-2:])):
                surgery.module(noise(1, 3, size, size))
            assert sizes == expected


def test_the_original_is_unchanged_and_the_weights_are_kept(build: Build) -> None:
    original = build("tf_efficientnet_b0").train()
    text, state = str(original), {key: value.clone() for key, value in original.state_dict().items()}
    surgery = replace_pooling(
        original, Component("max_blur3"), in_shape=IN_SHAPE, padding_mode="circular", head=Component("avg")
    )
    assert str(original) == text
    assert all(torch.equal(value, state[key]) for key, value in original.state_dict().items())
    assert all(part.training for part in surgery.module.modules())
    pairs = zip(surgery.module.parameters(), original.parameters(), strict=True)
    assert all(torch.equal(mine, theirs) and mine is not theirs for mine, theirs in pairs)


@pytest.mark.parametrize("name", [name for name in list_pools() if not pool_class(name).keeps_size])
def test_every_pool_takes_the_place_of_every_kind(name: str) -> None:
    """A user's own plain network: a strided convolution, an overlapping maximum, a maximum and a mean."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(3, 4, 3, stride=2, padding=1),
        norm=nn.BatchNorm2d(4),
        act=nn.GELU(),
        overlap=nn.MaxPool2d(3, 2, 1),
        max=nn.MaxPool2d(2),
        mean=nn.AvgPool2d(2),
        still=nn.AvgPool2d(3, 1, 1),
        global_pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
    )
    module = nn.Sequential(layers).double().eval()
    pool, head = Component(name), Component("gem", {"p": 2.0})
    surgery = replace_pooling(module, pool, in_shape=(3, 32, 32), padding_mode="circular", head=head)
    rest = pool_class(name).sampling or name
    assert [(one.at, one.pool.name) for one in surgery.replaced] == [
        ("act.pool", name),
        ("overlap.pool", rest),
        ("max", name),
        ("mean", name),
    ]
    assert {"act.pool", "overlap.pool", "max", "mean", "global_pool.head"} <= pooling_paths(surgery.module)
    assert isinstance(surgery.module.get_submodule("global_pool"), GlobalPool)
    x = noise(2, 3, 32, 32).double()
    out = surgery.module(x)
    assert out.shape == (2, 4)
    torch.testing.assert_close(surgery.module(torch.roll(x, (16, 16), (-2, -1))), out)


class Functional(nn.Module):
    """Activations without modules: one that a single layer uses, one that a layer and a sum use."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv2(F.relu(self.conv1(x))))
        return (x + self.conv3(x)).mean((-2, -1))


def test_functional_activations_work_or_are_refused() -> None:
    original = Functional().eval()
    surgery = replace_pooling(original, Component("decimate"), in_shape=IN_SHAPE)
    assert [(one.site.path, one.at) for one in surgery.replaced] == [("conv1", "conv2.pool")]
    assert [one.path for one in surgery.left] == ["conv2"]
    assert "no module of its own, and no single layer uses its output" in surgery.left[0].reason
    assert_same_logits(surgery, original)
    surgery = replace_pooling(original, Component("decimate"), in_shape=IN_SHAPE, placement="before_norm")
    assert [one.at for one in surgery.replaced] == ["conv1.pool", "conv2.pool"]
    assert_same_logits(surgery, original)


class Encoded(nn.Module):
    """Adds a convolution of constants, as networks with position encodings do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.encoding = nn.Conv2d(1, 4, 3)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        ones = torch.ones(1, 1, 34, 34)
        out: Tensor = self.pool(self.conv(x) + self.encoding(ones)).flatten(1)
        return out


def test_layers_that_do_not_see_the_image_stay() -> None:
    original = Encoded().eval()
    surgery = replace_pooling(
        original, Component("decimate"), in_shape=IN_SHAPE, padding_mode="zeros", head=Component("avg")
    )
    assert [one.site.path for one in surgery.replaced] == ["conv"]
    assert not surgery.left
    assert_same_logits(surgery, original)


class Branching(nn.Module):
    """What runs depends on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = x.relu() if x.mean() > 0 else x.sigmoid()
        out: Tensor = self.pool(x).mean((-2, -1))
        return out


def test_a_network_that_branches_refuses_what_needs_its_graph() -> None:
    surgery = replace_pooling(Branching(), Component("aps"), in_shape=IN_SHAPE)
    assert [one.at for one in surgery.replaced] == ["pool"]
    assert [one.path for one in surgery.left] == ["conv"]
    assert "branches on the values of maps" in surgery.left[0].reason
    for placement in ("before_norm", "before_convolution"):
        surgery = replace_pooling(
            Branching(),
            Component("aps"),
            in_shape=IN_SHAPE,
            placement=placement,  # type: ignore[arg-type]
        )
        assert [one.at for one in surgery.replaced] == ["conv.pool", "pool"]
        assert surgery.module(noise(1, *IN_SHAPE)).shape == (1, 4)


class OwnPadding(nn.Conv2d):
    """Pads with ones."""

    def forward(self, input: Tensor) -> Tensor:
        padded = torch.cat((torch.ones_like(input[..., :1]), input, torch.ones_like(input[..., :1])), -1)
        return F.conv2d(padded, self.weight, self.bias, self.stride)


def test_a_convolution_of_unknown_padding_is_left_alone() -> None:
    module = nn.Sequential(OwnPadding(3, 4, 3, stride=2, padding=1), nn.ReLU())
    with pytest.warns(UserWarning, match="replaced no downsampling: 0: the padding of OwnPadding is unknown"):
        surgery = replace_pooling(module, Component("avg"), in_shape=IN_SHAPE, padding_mode="circular")
    assert not surgery.replaced


def test_nothing_to_replace_is_a_warning() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    with pytest.warns(UserWarning, match="surgery replaced no downsampling: the network has no downsampling"):
        surgery = replace_pooling(plain, Component("max"), in_shape=IN_SHAPE)
    assert not surgery.replaced
    with pytest.warns(UserWarning, match="no global pool that head 'gem' could replace"):
        replace_pooling(plain, Component("max"), in_shape=IN_SHAPE, head=Component("gem"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": Component("dense")}, "pool 'dense' cannot replace a downsampling"),
        ({"pool": Component("none")}, "pool 'none' cannot replace a downsampling"),
        ({"pool": Component("avg"), "padding_mode": "mirror"}, "unknown padding_mode 'mirror'"),
        ({"pool": Component("avg"), "placement": "before"}, "unknown placement 'before' .there are: after_activation"),
        (
            {"pool": Component("aps"), "in_shape": (3, 36, 36)},
            r"layer2\.0\.conv1: pool 'aps' needs .* divides, got 9x9; use",
        ),
    ],
)
def test_what_cannot_be_done_is_an_error(build: Build, options: dict[str, object], message: str) -> None:
    resnet = build("torchvision:resnet18")
    with pytest.raises(UsageError, match=message):
        replace_pooling(resnet, **{"in_shape": IN_SHAPE, **options})  # type: ignore[arg-type]


def test_cost_of_surgery_by_hand() -> None:
    original = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU())
    surgery = replace_pooling(original, Component("max"), in_shape=(3, 32, 32))
    cost = cost_of_surgery(original, surgery.module, noise(2, 3, 32, 32), repeats=1)
    assert cost.after.flops == 4 * cost.before.flops == 2 * 2 * 8 * 32 * 32 * 27
    assert (cost.ratios["cost_flops"], cost.ratios["cost_parameters"]) == (4, 1)


def test_padding_of_layers_that_stay() -> None:
    """Pools with and without stride and padding layers wrap around, and keep their sizes."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.ZeroPad2d(1),
        nn.Conv2d(3, 4, 3),
        nn.AvgPool2d(3, 1, 1),
        nn.MaxPool2d(3, 1, 1),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(4, 4, 3, stride=2, padding=1),
    )
    surgery = replace_pooling(module, Component("avg"), in_shape=(3, 16, 16), padding_mode="circular", sites=["5"])
    assert [(one.path, one.reason) for one in surgery.left] == [("4", "not among the chosen sites")]
    x = noise(1, 3, 16, 16)
    with torch.no_grad():
        out = surgery.module(x)
        assert out.shape == module(x).shape == (1, 4, 4, 4)
        torch.testing.assert_close(surgery.module(x.roll((4, -8), (-2, -1))), out.roll((1, -2), (-2, -1)))
