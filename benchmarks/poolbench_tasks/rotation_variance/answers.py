"""In which layers training on rotated images lowers V, as sentences of the report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from poolbench.analysis.groups import Group
from poolbench.analysis.statistics import ALPHA, Interval, seeds_estimate
from poolbench.analysis.text import listed
from poolbench.plots.depth import short_names
from poolbench.plots.scene import Scene

COLUMNS = ("network", "aggregation", "depth", "layer", "V")
LONG = 8
"""More layers than these are counted and not named."""


def layers(scene: Scene) -> list[str]:
    """Return a sentence per architecture that was trained on plain and on rotated images."""
    sentences = []
    for title, members in scene.panels(scene.groups, ("dataset", "architecture"), within=("variant",)).items():
        trained = {group.fields["variant"]: group for group in members}
        if {"plain", "rotated"} <= trained.keys():
            found = _changes(scene, trained["plain"], trained["rotated"])
            if found:
                sentences.append(_sentence(title or str(members[0].fields["architecture"]), found))
    return sentences


def _changes(scene: Scene, plain: Group, rotated: Group) -> dict[str, Interval]:
    """Return {layer: change of V by rotated training}, paired by seed; {} with too few seeds.

    Layers in which V is undefined for a seed are left out.

    Each interval is at alpha divided by the number of layers (Bonferroni), so that all hold together.
    """
    before, after = _by_seed(scene, plain), _by_seed(scene, rotated)
    seeds = [seed for seed in before if seed in after]
    if not seeds:
        return {}
    changes = {name: [after[seed][name] - before[seed][name] for seed in seeds] for name in before[seeds[0]]}
    # V is undefined where a layer is dead.
    changes = {name: values for name, values in changes.items() if np.isfinite(values).all()}
    found = {name: seeds_estimate(values).interval(ALPHA / len(changes)) for name, values in changes.items()}
    return found if all(interval.is_bounded for interval in found.values()) else {}


def _by_seed(scene: Scene, group: Group) -> dict[int, dict[str, float]]:
    """Return {seed: {layer: V of map means}} of the networks that have learned."""
    found = {}
    for result in group.learned:
        table = scene.table(result, "layers", COLUMNS)
        if table is not None:
            rows = table[(table["network"] == "trained") & (table["aggregation"] == "mean")].sort_values("depth")
            found[result.cell.seed] = dict(zip(short_names(rows["layer"].tolist()), rows["V"].tolist(), strict=True))
    return found


def _sentence(title: str, found: dict[str, Interval]) -> str:
    lower = [name for name, interval in found.items() if interval.high < 0]
    higher = [name for name, interval in found.items() if interval.low > 0]
    parts = [f"lowers V of map means in {_named(lower, len(found))}"]
    parts += [f"raises it in {_named(higher, len(found))}"] if higher else []
    rest = len(found) - len(lower) - len(higher)
    parts += [f"changes {rest} by no more than the noise"] if rest else []
    return f"Training {title} on rotated images {listed(parts)} (all layers together at 95 %)."


def _named(names: Sequence[str], count: int) -> str:
    """Return how many of the layers these are, with their names if they are few."""
    if not names:
        return f"none of {count} layers"
    return f"{len(names)} of {count} layers" + (f" ({', '.join(names)})" if len(names) <= LONG else "")
