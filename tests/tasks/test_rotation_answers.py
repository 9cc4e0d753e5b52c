"""In which layers rotated training lowers V, on planted tables."""

from __future__ import annotations

from typing import Any

import pandas as pd

from poolbench.core import Result
from poolbench_tasks.rotation_variance.answers import layers

NOISE = (0.0, 0.002, -0.002, 0.001, -0.001, 0.002, -0.002, 0.0)


def table(values: dict[str, float]) -> dict[str, pd.DataFrame]:
    rows = [
        {"network": network, "aggregation": aggregation, "depth": depth, "layer": f"net.{layer}", "V": v}
        for network, shift in (("trained", 0.0), ("random", 5.0))
        for aggregation, more in (("mean", 0.0), ("max", 7.0))
        for depth, (layer, value) in enumerate(values.items())
        for v in [value + shift + more]
    ]
    return {"layers": pd.DataFrame(rows)}


def trained(made: Any, variant: str, values: dict[str, float], sign: int, **fields: Any) -> list[Result]:
    """Return a network per seed; the noise of all its layers is the same."""
    moved = [{name: value + sign * noise for name, value in values.items()} for noise in NOISE]
    return [
        made("max", seed, 0.9, variant=variant, tables=table(of_seed), **fields) for seed, of_seed in enumerate(moved)
    ]


def test_layers_are_told_apart(made: Any) -> None:
    results = trained(made, "plain", {"conv1": 0.5, "conv2": 0.5, "fc": 0.5}, 1)
    results += trained(made, "rotated", {"conv1": 0.501, "conv2": 0.3, "fc": 0.8}, -1)
    (sentence,) = layers(made.scene(results))
    assert sentence == (
        "Training net on rotated images lowers V of map means in 1 of 3 layers (conv2), raises it in 1 of 3 layers "
        "(fc) and changes 1 by no more than the noise (all layers together at 95 %)."
    )


def test_seeds_are_paired(made: Any) -> None:
    """The noise of both ways of training is the same, so its differences are exact."""
    results = trained(made, "plain", {"conv1": 0.5}, 1) + trained(made, "rotated", {"conv1": 0.499}, 1)
    assert "lowers V of map means in 1 of 1 layers (conv1)" in layers(made.scene(results))[0]


def test_one_way_of_training_or_few_seeds_say_nothing(made: Any) -> None:
    plain = trained(made, "plain", {"conv1": 0.5}, 1)
    assert layers(made.scene(plain)) == []
    assert layers(made.scene(plain[:3] + trained(made, "rotated", {"conv1": 0.4}, 1)[:3])) == []


def test_undefined_layers_are_left_out(made: Any) -> None:
    results = trained(made, "plain", {"conv1": 0.5, "dead": float("inf")}, 1)
    results += trained(made, "rotated", {"conv1": 0.4, "dead": float("nan")}, -1)
    assert "lowers V of map means in 1 of 1 layers" in layers(made.scene(results))[0]
