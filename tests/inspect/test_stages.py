"""Where the stages of a network are, and what their units do."""

from __future__ import annotations

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

from poolbench.inspect.stages import find_stages, is_map, measure_units, stage_maps
from poolbench.inspect.taps import Tap, read


def planted() -> nn.Sequential:
    """Two stages: in the first unit 1 copies unit 0 twice as strongly, in the second all units are dead."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip
    with torch.no_grad():
        network[0].weight[1] = 2 * network[0].weight[0]
        network[0].weight[2] = network[0].weight[0].flip(1) ** 3
        network[0].bias.zero_()
        network[3].weight.zero_()
        network[3].bias.fill_(-1.0)
    return network.eval()


def test_a_stage_is_the_last_activation_of_each_size() -> None:
    found = find_stages(planted(), (1, 12, 12))
    assert [(stage.tap.path, stage.shape) for stage in found] == [("1", (3, 12, 12)), ("4", (4, 6, 6))]
    assert all(stage.is_activation and stage.runs_once for stage in found)


def test_planted_copies_and_dead_units_are_found() -> None:
    network, images = planted(), torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    first, last = find_stages(network, (1, 12, 12))
    before, after = stage_maps(network, images.split(4), [first, last])
    units = measure_units(before)
    assert (units.images, units.dead, units.duplicates) == (6, (), (1,))
    maps = F.relu(network[0](images)).detach()
    activity = maps.mean(dim=(0, 2, 3))
    assert [float(activity[unit]) for unit in units.order] == sorted(activity.tolist(), reverse=True)
    assert measure_units(after).dead == (0, 1, 2, 3)


def test_the_stages_of_a_resnet_are_its_stem_and_its_layers() -> None:
    shapes = {"act1": (64, 32, 32), "layer1": (64, 16, 16), "layer2": (128, 8, 8), "layer3": (256, 4, 4),
              "layer4": (512, 2, 2)}  # fmt: skip
    ours = find_stages(timm.create_model("resnet18"), (3, 64, 64))
    assert {stage.tap.path: stage.shape for stage in ours} == shapes
    # torchvision's blocks use one module for both of their activations.
    others = find_stages(models.resnet18(), (3, 64, 64))
    assert {stage.tap.path: stage.shape for stage in others} == {
        "relu" if path == "act1" else path: shape for path, shape in shapes.items()
    }
    assert all(stage.is_activation for stage in (*ours, *others))


class Functional(nn.Module):
    """Activations without a module of their own, and one module for all activations that have one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.relu = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        return self.relu(self.relu(self.conv2(x)) - 0.1).mean(dim=(2, 3))


def test_activations_in_the_code_of_a_network() -> None:
    network, image = Functional(), torch.rand(1, 1, 8, 8)
    first, second = find_stages(network, (1, 8, 8))
    assert (first.tap, first.is_activation) == (Tap("conv1"), False)
    # The second call of the module that runs twice.
    assert (second.tap, second.is_activation, second.runs_once) == (Tap("relu", 1), True, False)
    logits, (maps,) = read(network, image, [second.tap])
    assert torch.equal(maps.mean(dim=(2, 3)), logits)


def test_what_counts_as_a_map() -> None:
    assert is_map((1, 64, 7, 7), (3, 224, 224))
    assert is_map((1, 64, 4, 6), (3, 224, 300))
    assert not is_map((1, 512, 1, 1), (3, 224, 224))
    assert not is_map((1, 7, 7, 96), (3, 224, 224))  # channels last
    assert not is_map((1, 49, 96), (3, 224, 224))


def test_a_network_without_convolutions_has_no_stage() -> None:
    assert find_stages(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), (1, 8, 8)) == []
