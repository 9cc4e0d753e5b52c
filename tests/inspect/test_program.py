"""Programs: what is exported, in which order, and what is refused. tests/tracking/test_live_page.py runs them."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from poolbench.architectures import create_model
from poolbench.architectures.blocks import ClassMaps
from poolbench.core import Component, UsageError
from poolbench.engine import Normalize
from poolbench.inspect.program import STEPS, export_program, supported
from poolbench.registry import heads, pools


def weight(entry: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.frombuffer(base64.b64decode(entry["data"]), "<f4").reshape(entry["shape"])


def test_a_shape_net_is_its_layers_in_order() -> None:
    model = create_model("shape_net", (1, 48, 48), 2, "max_blur3", "avg", "circular", num_pooling=2)
    program = export_program(model, (1, 48, 48))
    assert [(step.kind, step.path) for step in program.steps] == [
        ("conv", "conv1"),
        ("activation", "relu1"),
        ("max", "pool1"),
        ("blur", "pool1"),
        ("conv", "conv2"),
        ("activation", "relu2"),
        ("max", "pool2"),
        ("blur", "pool2"),
        ("conv", "conv3"),
        ("head", "classifier.head"),
    ]
    assert (program.pooled, program.maps, program.class_maps) == (3, 8, True)
    assert (program.outputs, program.parameters) == (1, 142)
    first = program.config()["steps"][0]
    assert (first["mode"], first["pad"], first["stride"]) == ("circular", [1, 1, 1, 1], [1, 1])
    np.testing.assert_array_equal(weight(first["weight"]), model.get_submodule("conv1").weight.detach().numpy())


def test_normalisation_and_batch_norm_become_a_scale_and_a_shift() -> None:
    norm = nn.BatchNorm2d(2)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.uniform_(norm.running_mean, -1, 1)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    model = nn.Sequential(Normalize((0.2, 0.4), (0.5, 0.1)), norm, ClassMaps(Component("avg"), 2, (3, 3))).eval()
    x = torch.rand(1, 2, 3, 3)
    expected = model[1](model[0](x))[0].detach().numpy()
    found = x[0].numpy()
    for step in export_program(model, (2, 3, 3)).steps[:2]:
        assert step.kind == "affine"
        scale, shift = (weight(step.settings[name])[:, None, None] for name in ("scale", "shift"))
        found = found * scale + shift
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_dense_networks_have_no_pooled_map() -> None:
    model = create_model("shape_net", (1, 32, 32), 2, "dense", "max", num_pooling=1)
    program = export_program(model, (1, 32, 32))
    assert program.pooled is None
    assert [step.settings["dilation"] for step in program.steps if step.kind == "conv"] == [[1, 1], [2, 2], [2, 2]]


def test_unsupported_layers_are_named_all_of_them() -> None:
    model = create_model("resnet20", (3, 32, 32), 10, "max", "avg", width=4)
    with pytest.raises(UsageError, match=r"cannot evaluate block1_1 \(Block\), block1_2 \(Block\), .*it has steps for"):
        export_program(model, (3, 32, 32))


class Squared(nn.ReLU):
    """A subclass that computes something else than its base."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input).square()


def test_a_subclass_is_not_taken_for_its_base() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), Squared(), ClassMaps(Component("avg"), 2, (3, 3)))
    with pytest.raises(UsageError, match=r"cannot evaluate 1 \(Squared\)"):
        export_program(model, (1, 5, 5))


def test_a_network_without_a_head_is_refused() -> None:
    with pytest.raises(UsageError, match="has no head of poolbench"):
        export_program(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), (1, 5, 5))


def test_a_batch_norm_without_statistics_is_refused() -> None:
    norm = nn.BatchNorm2d(1, track_running_stats=False)
    with pytest.raises(UsageError, match="BatchNorm without running statistics"):
        export_program(nn.Sequential(norm, ClassMaps(Component("avg"), 1, (3, 3))), (1, 3, 3))


def test_pools_and_heads_of_the_page_are_registered_ones() -> None:
    registered = {entries.get(name) for entries in (pools, heads) for name in entries.names()}
    ours = {
        module for module in STEPS if module.__module__.startswith("poolbench.pooling") and module.__name__ != "Crop"
    }
    assert ours <= registered
    assert supported() == sorted({module.__name__ for module in STEPS})
