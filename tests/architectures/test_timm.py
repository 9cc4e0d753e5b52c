"""Surgery on timm models: what is replaced, what stays, and which models raise an error."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from poolbench.architectures import create_model
from poolbench.core import Cell, Component, TrainConfig, UsageError
from poolbench.data import Split, images_dataset
from poolbench.engine import build_model
from poolbench.pooling.heads import GlobalLse
from poolbench.pooling.local import Decimate
from poolbench.pooling.lowpass import Blur3
from poolbench.pooling.means import GemPool
from poolbench.registry import architectures, heads, pools
from poolbench.runner.plan import Selection, plan
from poolbench.surgery import GlobalPool

timm = pytest.importorskip("timm")

# Downsamplings by hand from the papers: a stem, then one per stage (vgg pools five times).
DOWNSAMPLINGS = {
    "resnet18": 8,  # stem convolution and pool, then a 3x3 and a 1x1 in each of three stages
    "vgg11_bn": 5,
    "densenet121": 5,
    "mobilenetv3_small_100": 5,
    "convnext_atto": 4,
    "efficientnet_b0": 5,
}


@pytest.mark.parametrize("name", DOWNSAMPLINGS)
def test_every_downsampling_and_the_global_pool_are_replaced(name: str) -> None:
    model = create_model(f"timm:{name}", (3, 64, 64), 10, "blur3", "gem", "circular").eval()
    assert sum(isinstance(module, GlobalPool) for module in model.modules()) == 1
    assert len(model.replaced) == DOWNSAMPLINGS[name]  # type: ignore[arg-type]
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d):
            assert module.stride in (1, (1, 1))
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 10)


def test_decimate_and_avg_give_the_original_back() -> None:
    torch.manual_seed(0)
    original = timm.create_model("mobilenetv3_small_100", num_classes=10, in_chans=3).eval()
    operated = create_model("timm:mobilenetv3_small_100", (3, 64, 64), 10, "decimate", "avg").eval()
    # Pools go after activations, which have no weights: the names of the weights stay.
    operated.load_state_dict(original.state_dict())
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(operated(x), original(x), rtol=1e-4, atol=1e-5)


def test_weights_of_the_model_are_kept() -> None:
    torch.manual_seed(3)
    original = timm.create_model("resnet18", num_classes=10, in_chans=3)
    torch.manual_seed(3)
    operated = create_model("timm:resnet18", (3, 64, 64), 10, "max_blur3", "avg")
    assert torch.equal(operated.get_submodule("conv1").weight, original.conv1.weight)  # type: ignore[arg-type]
    assert torch.equal(operated.get_submodule("fc").weight, original.fc.weight)  # type: ignore[arg-type]


def test_a_timm_cell_keeps_timms_weights_whatever_the_pool() -> None:
    images = torch.randint(0, 255, (20, 3, 32, 32), dtype=torch.uint8)
    split = Split(images, torch.arange(20) % 10)
    data = images_dataset("noise", tuple("0123456789"), split, split, "made here")
    resnet, avg, train = architectures.resolve("timm:resnet18"), heads.resolve("avg"), TrainConfig(epochs=1)
    models = [
        build_model(
            Cell("b", Component("noise"), resnet, pools.resolve(pool), avg, "plain", 3, train), data, "cpu"
        ).get_submodule("network")
        for pool in ("max_blur3", "strided_conv")
    ]
    for path in ("conv1.weight", "layer3.0.conv1.weight", "fc.weight"):
        assert torch.equal(models[0].get_parameter(path), models[1].get_parameter(path)), path
    deviation = float(models[0].get_parameter("layer4.1.conv2.weight").detach().std())
    # timm uses Kaiming initialisation with fan-out; torch's default has a fifth of its standard deviation.
    assert deviation == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.05)


def test_standardised_convolutions_stay() -> None:
    original = timm.create_model("resnetv2_50x1_bit", num_classes=10)
    model = create_model("timm:resnetv2_50x1_bit", (3, 64, 64), 10, "avg", "avg").eval()
    kinds = [{type(m).__name__ for m in one.modules() if isinstance(m, nn.Conv2d)} for one in (original, model)]
    assert kinds[0] == kinds[1]
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 10)


def test_the_placement_is_an_option() -> None:
    model = create_model("timm:resnet18", (3, 64, 64), 10, "blur3", "avg", placement="before_norm")
    assert isinstance(model.get_submodule("layer2.0.conv1.pool"), Blur3)
    with pytest.raises(UsageError, match="placement"):
        create_model("timm:resnet18", (3, 64, 64), 10, "blur3", "avg", placement="before")
    assert architectures.resolve("timm:resnet18").options["placement"] == "after_activation"


def test_heads_with_several_features_are_projected_back() -> None:
    model = create_model("timm:resnet18", (3, 64, 64), 10, "max", "catavgmax").eval()
    pool = model.get_submodule("global_pool")
    assert isinstance(pool, GlobalPool)
    assert isinstance(pool.project, nn.Linear)
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 10)


def test_odd_maps_keep_the_sizes_of_the_original() -> None:
    # vgg floors: 50, 25, 12, 6, 3, 1.
    model = create_model("timm:vgg11_bn", (3, 50, 50), 10, "avg", "avg").eval()
    assert model(torch.rand(1, 3, 50, 50)).shape == (1, 10)
    assert any(type(m).__name__ == "Crop" for m in model.modules())
    assert not any(isinstance(m, Decimate) for m in model.modules())


@pytest.mark.parametrize(
    ("name", "pool", "message"),
    [
        ("timm:resnet19", "max", "unknown timm model 'resnet19'; did you mean 'resnet1"),
        ("timm:resnet18", "dense", "pool 'dense' cannot replace a downsampling"),
        ("timm:resnet18", "none", "pool 'none' cannot replace a downsampling"),
        ("timm:mixer_s32_224", "max", "timm:mixer_s32_224: no global pool"),
    ],
)
def test_what_cannot_be_done_is_an_error(name: str, pool: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_model(name, (3, 224, 224), 10, pool, "avg")


def test_options_of_the_pool_and_the_head_reach_every_place() -> None:
    pool, head = Component("gem_local", {"p": 4.0}), Component("lse", {"r": 2.0})
    model = create_model("timm:vgg11_bn", (3, 32, 32), 10, pool, head)
    powers = [module.get_parameter("p") for module in model.modules() if isinstance(module, GemPool)]
    assert [float(p.detach()) for p in powers] == [4] * 5
    assert [float(m.log_r.detach().exp()) for m in model.modules() if isinstance(m, GlobalLse)] == pytest.approx([2])


def test_unknown_options_are_an_error() -> None:
    with pytest.raises(UsageError, match="unknown timm:resnet18 option 'pretrain'; did you mean 'pretrained'"):
        create_model("timm:resnet18", (3, 32, 32), 10, pretrain=True)


def test_a_timm_model_takes_the_place_of_an_architecture() -> None:
    cells = plan(Selection(("rotation_variance",), architectures=("timm:resnet18",), seeds=(0,)))
    assert {cell.architecture for cell in cells} == {architectures.resolve("timm:resnet18")}
    assert {(cell.dataset.name, cell.variant) for cell in cells} == {
        ("mnist_sample", variant) for variant in ("plain", "rotated")
    }
