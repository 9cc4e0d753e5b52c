"""Layer sensitivity against loops, and what must not move."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from poolbench.architectures import create_model
from poolbench.measures.shift import layer_sensitivity, shift_subpixel, stages


def images(count: int, size: int) -> Tensor:
    return torch.rand(count, 1, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def network(pool: str, size: int = 16) -> nn.Module:
    torch.manual_seed(0)
    model = create_model("shape_net", (1, size, size), 3, pool, "avg", "circular", num_pooling=1)
    return nn.Sequential(OrderedDict(normalize=nn.Identity(), network=model)).double().eval()


def test_stages_are_the_children_of_the_network_proper() -> None:
    expected = ["conv1", "relu1", "pool1", "conv2", "relu2", "conv3", "classifier"]
    assert list(stages(network("max"))) == [f"network.{name}" for name in expected]
    assert list(stages(nn.Conv2d(1, 1, 3))) == [""]
    assert list(stages(nn.Sequential(nn.Conv2d(1, 1, 3)))) == ["0"]


def test_sensitivity_against_a_loop() -> None:
    model, x, shifts = network("max"), images(9, 16), [(1, 0), (-2, 3)]
    found = layer_sensitivity(model, x, shifts).set_index(["stage", "dy", "dx"])
    assert len(found) == 7 * 2
    pool = nn.Sequential(*list(model.get_submodule("network").children())[:3])
    for dy, dx in shifts:
        l2, cosine, aligned = [], [], []
        for image in x:
            with torch.no_grad():
                before = pool(image[None])
                after = pool(torch.roll(image[None], (dy, dx), dims=(-2, -1)))
            norm = float(before.square().sum()) ** 0.5
            l2.append(float((after - before).square().sum()) ** 0.5 / norm)
            cosine.append(1 - float(torch.cosine_similarity(before.flatten(), after.flatten(), dim=0)))
            rest = after - shift_subpixel(before, dy / 2, dx / 2)
            aligned.append(float(rest.square().sum()) ** 0.5 / norm)
        row = found.loc[("network.pool1", dy, dx)]
        assert row["l2"] == pytest.approx(sum(l2) / 9, rel=1e-9)
        assert row["cosine"] == pytest.approx(sum(cosine) / 9, rel=1e-9)
        assert row["aligned"] == pytest.approx(sum(aligned) / 9, rel=1e-9)
        assert row["depth"] == 2


def test_what_stands_still_and_what_only_moves() -> None:
    still = layer_sensitivity(network("max"), images(4, 16), [(0, 0), (16, -16)])
    assert float(still[["l2", "aligned"]].abs().max().max()) < 1e-12
    # Convolutions with circular padding move with their input; the pool's phase is what does not.
    moved = layer_sensitivity(network("max"), images(4, 16), [(1, 1)]).set_index("stage")
    assert moved.loc["network.relu1", "l2"] > 0.1
    assert moved.loc["network.relu1", "aligned"] < 1e-12
    assert moved.loc["network.pool1", "aligned"] > 1e-3
    # A whole step of the pool moves everything behind it.
    even = layer_sensitivity(network("max"), images(4, 16), [(2, 0)])
    assert float(even["aligned"].max()) < 1e-12


def test_dead_features_do_not_move() -> None:
    model = nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3, padding=1), relu=nn.ReLU(inplace=True))).double()
    nn.init.constant_(model.get_submodule("conv").bias, -100.0)  # type: ignore[arg-type]
    rows = layer_sensitivity(model, images(3, 8), [(1, 2)]).set_index("stage")
    assert rows.loc["relu", ["l2", "cosine", "aligned"]].tolist() == [0, 0, 0]
    # The in-place activation did not overwrite what the convolution had given.
    assert rows.loc["conv", "l2"] > 0
