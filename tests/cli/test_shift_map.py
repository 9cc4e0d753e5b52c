"""shift-map: numbers on stdout, picture and arrays as files, what it takes before it starts, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result

from poolbench.architectures import create_model
from poolbench.cli import progress
from poolbench.shift_map import PUBLISHED_LAYERS

Cli = Callable[..., Result]

NETWORKS = '''
import torch
from torch import nn


class Attention(nn.Module):
    """Patches, position embeddings and attention over the image: no period."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 8, 8, stride=8)
        self.positions = nn.Parameter(torch.randn(16, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.classify = nn.Linear(8, 5)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.classify(self.attention(tokens, tokens, tokens)[0].mean(1))


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.classify = nn.Linear(2 * 32 * 32, 3)

    def forward(self, x):
        return self.classify(x.flatten(1))
'''


def published_file(folder: Path, num_pooling: int) -> Path:
    network = create_model("shape_net", (1, 64, 64), 1, num_pooling=num_pooling)
    state = network.state_dict()
    renamed = {
        f"net.{layer}.{part}": state[f"conv{index}.{part}"]
        for index, layer in enumerate(PUBLISHED_LAYERS[num_pooling], start=1)
        for part in ("weight", "bias")
    }
    torch.save(renamed, folder / "published.pt")
    return folder / "published.pt"


def test_the_command_draws_and_tells(tmp_path: Path, cli: Cli) -> None:
    file = published_file(tmp_path, 1)
    done = cli("shift-map", "--checkpoint", str(file), "--canvas", "64", "--half-size", "3", "--device", "cpu")
    assert done.exit_code == 0, done.stderr
    told = dict(line.split() for line in done.stdout.splitlines())
    assert told["interior_values"] == "4"
    assert told["total_stride"] == "2"
    assert re.match(r"at most [\d,]+ forward passes: one period and the border", done.stderr)
    assert (tmp_path / "shift_map.png").read_bytes().startswith(b"\x89PNG")
    with np.load(tmp_path / "shift_map.npz") as arrays:
        assert arrays["probability"].shape == (64, 64)
        assert arrays["phases"].shape == (2, 2)
        assert float(arrays["probability"].min()) == pytest.approx(float(told["probability_min"]), rel=1e-5)


def test_a_network_without_a_period_says_what_it_takes(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 1e9)
    (tmp_path / "nets.py").write_text(NETWORKS)
    command = ("shift-map", "--model", "nets.py:Attention", "--canvas", "32", "--half-size", "2", "--device", "cpu")
    done = cli(*command)
    assert done.exit_code == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0] == "1,024 forward passes, one per position; --step 4 takes 64"
    counts = [line.partition(" (")[0] for line in lines if " of 1,024 forward passes" in line]
    assert len(counts) >= 5
    assert counts[-1] == "1,024 of 1,024 forward passes"
    with np.load(tmp_path / "shift_map.npz") as arrays:
        whole = arrays["probability"]
    assert whole.shape == (32, 32)
    target = dict(line.split() for line in done.stdout.splitlines())["class"]

    coarse = cli(*command, "--step", "4", "--class", target, "--png", "coarse.png")
    assert coarse.exit_code == 0, coarse.stderr
    assert "no phase part and no border part" in coarse.stderr
    assert "interior_values" not in coarse.stdout
    assert coarse.stderr.splitlines()[0] == "64 forward passes, one per position; --step 16 takes 4"
    with np.load(tmp_path / "coarse.npz") as arrays:
        assert int(arrays["step"]) == 4
        np.testing.assert_allclose(arrays["probability"], whole[::4, ::4], rtol=1e-5)


def test_a_network_without_convolutions_needs_its_channels(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "nets.py").write_text(NETWORKS)
    command = ("shift-map", "--model", "nets.py:Linear", "--canvas", "32", "--step", "8", "--device", "cpu")
    refused = cli(*command)
    assert refused.exit_code == 2
    assert "give --channels" in refused.stderr
    wrong = cli(*command, "--channels", "3")
    assert wrong.exit_code == 2
    assert wrong.stderr.startswith("poolbench: the network does not take images of 3x32x32: ")
    assert wrong.stderr.count("\n") == 1
    assert cli(*command, "--channels", "2").exit_code == 0


def test_the_command_wants_one_network(tmp_path: Path, cli: Cli) -> None:
    for arguments in ([], ["--checkpoint", "a.pt", "--model", "timm:resnet10t"]):
        done = cli("shift-map", *arguments)
        assert done.exit_code == 2
        assert done.stderr.count("\n") == 1
        assert "either --checkpoint FILE or --model" in done.stderr
    torch.save(create_model("shape_net", (1, 32, 32), 2, num_pooling=1).state_dict(), tmp_path / "own.pt")
    done = cli("shift-map", "--checkpoint", str(tmp_path / "own.pt"))
    assert done.exit_code == 2
    assert "give others with --model" in done.stderr
