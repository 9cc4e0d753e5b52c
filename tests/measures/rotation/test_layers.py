"""Which layers are recorded, in which order, and what their units are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from poolbench.architectures import create_model
from poolbench.measures.rotation import (
    activation_variance,
    local_equivariance_error,
    recorded_layers,
)
from poolbench.pooling import create_head, create_pool, list_heads, list_pools

Images = Callable[..., Tensor]


ANGLES = [0.0, 50.0, 90.0, 200.0]


def test_an_in_place_activation_does_not_change_recorded_outputs(images: Images) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(1, 3, 3)
    plain = nn.Sequential(convolution, nn.Flatten(), nn.Linear(3 * 49, 2), nn.ReLU()).double()
    in_place = nn.Sequential(*list(plain)[:-1], nn.ReLU(inplace=True))
    first, second = (activation_variance(model, images(4), ANGLES) for model in (plain, in_place))
    assert first["layer"].unique().tolist() == ["0", "2", "3"]
    assert first.equals(second)
    assert local_equivariance_error(plain, images(4)).equals(local_equivariance_error(in_place, images(4)))


@pytest.mark.parametrize("pool", ["strided_conv", "lip", "lps", "space_to_depth"])
def test_the_same_layers_are_recorded_whatever_the_pooling(pool: str, images: Images) -> None:
    plain = create_model("vgg_like", (1, 32, 32), 4, "max", "avg", width=2, hidden=3)
    for head in ("avg", "simpool", "attention"):
        model = create_model("vgg_like", (1, 32, 32), 4, pool, head, width=2, hidden=3)
        assert recorded_layers(model) == recorded_layers(plain)
        units = activation_variance(model, images(4, 32).float(), [0.0, 90.0])
        assert set(units["layer"]) == set(recorded_layers(plain))


def test_layers_inside_any_pool_or_head_are_left_out() -> None:
    modules = [create_pool(name, 4) for name in list_pools()]
    modules += [create_head(name, 4, size=(4, 4)) for name in list_heads()]
    for module in modules:
        assert recorded_layers(nn.Sequential(nn.Conv2d(1, 4, 3), module)) == {"0": "convolution"}


def test_a_module_that_runs_twice_counts_as_two_layers(images: Images) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act = nn.Conv2d(1, 1, 3), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.act(self.act(self.conv(x)) - 0.1)
            return out.flatten(1)

    units = activation_variance(Twice().double(), images(4), ANGLES, None, ("mean",))
    assert units["layer"].tolist() == ["conv", "act", "act:2"]
    assert units["kind"].tolist() == ["convolution", "activation", "activation"]


def test_units_of_any_timm_model_are_its_channels() -> None:
    for name, pool in (("convnext_atto", "blur3"), ("mobilenetv3_small_100", "decimate")):
        model = create_model(f"timm:{name}", (3, 32, 32), 4, pool, "avg")
        x = torch.rand(3, 3, 32, 32)
        units = activation_variance(model, x, [0.0, 45.0], None, ("mean",))
        sizes = units.groupby("layer", sort=False).size()
        modules = dict(model.named_modules())
        for layer, size in sizes.items():
            module = modules[str(layer).partition(":")[0]]
            if isinstance(module, nn.Conv2d):
                assert size == module.out_channels
            if isinstance(module, nn.Linear):
                assert size == module.out_features
        assert {"convolution", "normalisation", "linear"} <= set(units["kind"])
    # An activation behind a linear layer has its units on the last axis, too.
    convnext = create_model("timm:convnext_atto", (3, 32, 32), 4, "decimate", "avg")
    found = activation_variance(convnext, torch.rand(3, 3, 32, 32), [0.0, 45.0], None, ("mean",))
    sizes = found.groupby("layer", sort=False).size()
    acts = [layer for layer in sizes.index if str(layer).endswith("mlp.act")]
    assert acts
    assert all(sizes[layer] == sizes[str(layer).replace("act", "fc1")] for layer in acts)


def test_layers_are_in_order_of_execution_and_leave_no_hook(images: Images) -> None:
    model = create_model("resnet18", (1, 16, 16), 4, "decimate", width=2)
    layers = activation_variance(model, images(2, 16).float(), ANGLES)["layer"].unique().tolist()
    assert layers[:3] == ["conv", "norm", "relu"]
    assert layers[-1] == "classifier.linear"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
