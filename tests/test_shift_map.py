"""Maps of networks from outside: the published layout, timm's models, Python paths, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from poolbench.core import UsageError
from poolbench.measures.shift import MapPlan, canvas_map
from poolbench.shift_map import PUBLISHED_LAYERS, distinct, named_network, published_network, shift_map


def published_file(folder: Path, num_pooling: int) -> tuple[Path, nn.Sequential]:
    """Store a network in the published layout; return the file and the network as its authors would write it."""
    torch.manual_seed(num_pooling)
    layers: list[nn.Module] = []
    for index, (channels_in, channels_out) in enumerate(((1, 3), (3, 3), (3, 1))):
        layers.append(nn.Conv2d(channels_in, channels_out, 3, padding=1))
        if index < 2:
            layers.append(nn.ReLU())
        if index < num_pooling:
            layers.append(nn.MaxPool2d(2))
    network = nn.Sequential(*layers)
    assert tuple(i for i, layer in enumerate(network) if isinstance(layer, nn.Conv2d)) == PUBLISHED_LAYERS[num_pooling]
    file = folder / f"{num_pooling}.pt"
    torch.save({f"net.{name}": value for name, value in network.state_dict().items()}, file)
    return file, network


@pytest.mark.parametrize("num_pooling", [0, 1, 2])
def test_published_checkpoints_answer_as_their_authors_network_does(tmp_path: Path, num_pooling: int) -> None:
    file, network = published_file(tmp_path, num_pooling)
    loaded = published_network(file, num_pooling)
    pixels = torch.randint(0, 256, (4, 1, 40, 40), generator=torch.Generator().manual_seed(0)).float()
    with torch.no_grad():
        expected = network(pixels - 127.5).mean(dim=(-2, -1))
        torch.testing.assert_close(loaded(pixels / 255), expected, rtol=1e-5, atol=1e-4)


def test_a_map_has_one_interior_value_per_phase(tmp_path: Path) -> None:
    for num_pooling, values in ((0, 1), (1, 4), (2, 16)):
        network = published_network(published_file(tmp_path, num_pooling)[0], num_pooling)
        numbers = shift_map(network, channels=1, canvas=96, half_size=6).numbers()
        assert numbers["total_stride"] == 2**num_pooling
        assert numbers["interior_values"] == values
        assert numbers["class"] == 1


def test_a_coarse_map_is_part_of_the_whole(tmp_path: Path) -> None:
    network = published_network(published_file(tmp_path, 2)[0], 2)
    whole = shift_map(network, channels=1, canvas=192, half_size=6)
    plans: list[MapPlan] = []
    for step, values in ((2, 4), (3, 16), (4, 1)):
        coarse = shift_map(network, channels=1, canvas=192, half_size=6, step=step, on_plan=plans.append)
        torch.testing.assert_close(coarse.log_odds, whole.log_odds[::step, ::step], rtol=1e-4, atol=1e-5)
        assert plans[-1].periodic == (coarse.parts is not None)
        if coarse.parts is not None:
            assert coarse.numbers()["interior_values"] == values
            assert abs(coarse.numbers()["interior_margin"] - whole.numbers()["interior_margin"]) <= step
    assert plans[0].periodic
    assert not plans[-1].periodic  # the grid is cheaper than one period and the border


def test_distinct_values_ignore_rounding() -> None:
    assert distinct(torch.tensor([1.0, 1.0000001, 2.0, -3.0, 2.0])) == 3
    assert distinct(torch.zeros(4)) == 1


def test_wrong_checkpoints_are_refused_in_one_line(tmp_path: Path) -> None:
    one, _ = published_file(tmp_path, 1)
    with pytest.raises(UsageError, match="it has 1: give --num-pooling 1"):
        published_network(one, 2)
    with pytest.raises(UsageError, match=r"0, 1 or 2 pooling layers, got 3$"):
        published_network(one, 3)
    with pytest.raises(UsageError, match="give the checkpoint's path"):
        published_network(tmp_path / "absent.pt", 1)
    (tmp_path / "text.pt").write_text("weights")
    with pytest.raises(UsageError, match=r"is not a file of torch\.save"):
        published_network(tmp_path / "text.pt", 1)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UsageError, match="does not hold a state dict"):
        published_network(tmp_path / "list.pt", 1)
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.pt")
    with pytest.raises(UsageError, match="not one of analyze_pooling's networks"):
        published_network(tmp_path / "linear.pt", 1)


def test_models_by_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)\n"
        "    def forward(self, x):\n"
        "        return self.conv(x).relu().amax((-2, -1))\n"
        "ready = Net()\n"
        "number = 3\n"
        "def needs(x): return Net()\n"
    )
    for spec in (f"{file}:Net", f"{file}:ready"):
        network = named_network(spec)
        found = shift_map(network, channels=3, canvas=32, half_size=2)
        assert found.log_odds.shape == (32, 32)
        assert found.period == 2
    chosen = shift_map(network, channels=3, canvas=32, half_size=2, target=3)
    outputs = canvas_map(network, torch.ones(3, 5, 5), torch.zeros(3, 32, 32), exhaustive=True)
    torch.testing.assert_close(chosen.log_odds.sigmoid(), outputs.softmax(dim=-1)[..., 3], rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="has 4 classes, got class 4"):
        shift_map(network, channels=3, canvas=32, half_size=2, target=4)
    for spec, reason in (
        (f"{file}:absent", "has no 'absent'"),
        (f"{file}:number", "cannot be called without arguments"),
        (f"{file}:needs", "cannot be called without arguments"),
        ("nowhere.py:Net", "there is no file"),
        ("no_such_package.nets:Net", "'no_such_package.nets' cannot be imported"),
        ("resnet18", "a model is timm:NAME"),
        ("timm:no_such_model", "unknown timm model 'no_such_model'"),
    ):
        with pytest.raises(UsageError, match=reason):
            named_network(spec)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(UsageError, match="ZeroDivisionError"):
        named_network(f"{tmp_path / 'broken.py'}:Net")


def test_timm_models_take_pixels() -> None:
    torch.manual_seed(0)
    network = named_network("timm:resnet10t")
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        normalised = (pixels - torch.tensor([0.485, 0.456, 0.406]).view(-1, 1, 1)) / torch.tensor(
            [0.229, 0.224, 0.225]
        ).view(-1, 1, 1)
        torch.testing.assert_close(network(pixels), network[1](normalised))  # type: ignore[index]
