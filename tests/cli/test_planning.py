"""list and plan: options of entries, and selectors that carry options."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import Result

from poolbench.cli.options import split_components
from poolbench.registry import architectures, benchmarks, datasets, heads, pools
from poolbench.runner.plan import Selection, plan

Cli = Callable[..., Result]


def test_list_shows_every_entry_with_its_options(cli: Cli) -> None:
    everything = cli("list").stdout.splitlines()
    for kind, registry in {
        "benchmarks": benchmarks, "pools": pools, "heads": heads, "architectures": architectures, "datasets": datasets,
    }.items():  # fmt: skip
        lines = cli("list", kind).stdout.splitlines()
        assert f"{kind}:" in everything
        assert [f"  {line}" in everything for line in lines] == [True] * len(lines)
        names = [line.split()[0] for line in lines if not line.startswith(" ")]
        assert names == [*registry.names(), *(["timm:NAME"] if kind == "architectures" else [])]
        for name in registry.names():
            index = next(i for i, line in enumerate(lines) if line.split()[0] == name)
            assert registry.describe(name) in lines[index]
            for option in registry.options(name):
                assert f"{option}: " in lines[index + 1]


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("pools", "options: p: float = 3.0, eps: float = 1e-06"),
        ("pools", "options: hidden: int|None = none, temperature: float = 1.0, hard: bool = true"),
        ("datasets", "options: pad: int = 0, normalize: standard|unit = standard"),
        (
            "architectures",
            "options: pretrained: bool = false, "
            "placement: after_activation|before_norm|before_convolution = after_activation",
        ),
    ],
)
def test_options_are_listed_as_they_are_typed(cli: Cli, kind: str, line: str) -> None:
    assert line in [text.strip() for text in cli("list", kind).stdout.splitlines()]


def test_marks_are_listed(cli: Cli) -> None:
    lines = cli("list", "pools").stdout.splitlines()
    assert next(line for line in lines if line.startswith("lps ")).endswith("(shift equivariant, learnable, random)")
    assert "(" not in next(line for line in lines if line.startswith("max ")).partition("stride x stride.")[2]


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("max", ["max"]),
        ("max, avg,", ["max", "avg"]),
        ("gem_local:p=4,max", ["gem_local:p=4", "max"]),
        ("max,gem_local:p=4,eps=1e-3,avg", ["max", "gem_local:p=4,eps=1e-3", "avg"]),
        ("gem_local:p=2,gem_local:p=4", ["gem_local:p=2", "gem_local:p=4"]),
        ("timm:resnet18,vgg_like", ["timm:resnet18", "vgg_like"]),
        (
            "timm:resnet18:pretrained=true,vgg_like:width=8,hidden=4",
            ["timm:resnet18:pretrained=true", "vgg_like:width=8,hidden=4"],
        ),
        ("", []),
    ],
)  # fmt: skip
def test_a_comma_separates_entries_and_options(text: str, entries: list[str]) -> None:
    assert split_components(text) == entries


def planned(cli: Cli, *arguments: str) -> list[str]:
    done = cli("plan", *arguments)
    assert done.exit_code == 0, done.stderr
    return done.stdout.splitlines()


SMALL = ("global_pooling", "--preset", "smoke", "--seeds", "0")


def test_options_of_pools_and_heads_are_part_of_the_cells(cli: Cli) -> None:
    lines = planned(cli, *SMALL, "--pool", "gem_local:p=4,max", "--head", "gem:p=2", "--head", "avg")
    selection = Selection(
        ("global_pooling",), "smoke", pools=("gem_local:p=4", "max"), heads=("gem:p=2", "avg"), seeds=(0,)
    )
    assert [line.split()[0] for line in lines] == [cell.id for cell in plan(selection)]
    assert sum("gem_local" in line and "pool.p=4.0" in line for line in lines) == len(lines) // 2
    assert sum(" gem " in line and "head.p=2.0" in line for line in lines) == len(lines) // 2
    default = planned(cli, *SMALL, "--pool", "gem_local", "--head", "gem")
    assert default == planned(cli, *SMALL, "--pool", "gem_local:p=3", "--head", "gem:p=3.0,eps=1e-6")
    assert not {line.split()[0] for line in lines} & {line.split()[0] for line in default}


def test_options_of_architectures_and_data_sets_are_part_of_the_cells(cli: Cli) -> None:
    lines = planned(cli, *SMALL, "--arch", "vgg_like:width=4", "--dataset", "mnist_sample:normalize=unit")
    assert lines
    assert all("mnist_sample vgg_like" in line and "width=4" in line for line in lines)
    standard = planned(cli, *SMALL, "--arch", "vgg_like:width=4", "--dataset", "mnist_sample")
    assert not {line.split()[0] for line in lines} & {line.split()[0] for line in standard}


def test_training_options_are_part_of_the_cells(cli: Cli) -> None:
    lines = planned(cli, *SMALL, "--train", "optimizer=sgd,learning_rate=0.1", "--train", "epochs=3")
    train = {"optimizer": "sgd", "learning_rate": 0.1, "epochs": 3}
    expected = plan(Selection(("global_pooling",), "smoke", seeds=(0,), train=train))
    assert [line.split()[0] for line in lines] == [cell.id for cell in expected]
    assert {(cell.train.optimizer, cell.train.learning_rate, cell.train.epochs) for cell in expected} == {
        ("sgd", 0.1, 3)
    }
    assert lines == planned(cli, *SMALL, "--train", "optimizer=sgd,learning_rate=0.1", "--epochs", "3")
    assert lines == planned(cli, *SMALL, "--train", "optimizer=sgd,learning_rate=0.1,epochs=3", "--epochs", "3")


def test_augmentations_have_no_order(cli: Cli) -> None:
    first, second = (planned(cli, *SMALL, "--train", f"augment={text}") for text in ("shift+flip", "flip+shift"))
    assert first == second
    assert first != planned(cli, *SMALL, "--train", "augment=none")


def test_timm_models_are_planned_by_name(cli: Cli) -> None:
    lines = planned(cli, *SMALL, "--arch", "timm:resnet10t,vgg_like")
    assert {line.split()[4] for line in lines} == {"timm:resnet10t", "vgg_like"}
