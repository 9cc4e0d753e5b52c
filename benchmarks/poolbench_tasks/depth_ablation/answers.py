"""The smallest sufficient depth, and what the last maps carry, as sentences of the report."""

from __future__ import annotations

from poolbench.analysis.groups import Group
from poolbench.analysis.sufficiency import Sufficient, sufficient
from poolbench.analysis.text import interval_text
from poolbench.plots.scene import Scene


def sufficient_depths(scene: Scene) -> list[str]:
    """Return a sentence per data set, pool and head on the depth that suffices, and one on noise in the last stage."""
    sentences = []
    for title, members in scene.panels(scene.groups, ("dataset", "pool", "head"), within=("blocks", "variant")).items():
        values = {int(str(group.fields["blocks"])): group.values("accuracy") for group in members if group.learned}
        found = sufficient(values)
        if found is not None:
            sentences.append(_sentence(title or str(members[0].fields["head"]), found))
        deepest = max(members, key=lambda group: int(str(group.fields["blocks"])))
        sentences += _carried(scene, title or str(deepest.fields["head"]), deepest)
    return sentences


def _sentence(title: str, found: Sufficient) -> str:
    low, high = found.without_one
    same = "the answer is the same" if low == high == found.size else f"the answer is {low} to {high}"
    blocks = "1 block is" if found.size == 1 else f"{found.size} blocks are"
    return (
        f"{title}: {blocks} enough by the one-standard-error rule (accuracy {found.mean:.3f}; best: {found.best} with "
        f"{found.best_mean:.3f}, standard error {found.standard_error:.3f}, {found.n} folds). With any one fold left "
        f"out {same}."
    )


def _carried(scene: Scene, title: str, deepest: Group) -> list[str]:
    """Return what noise in place of the last maps costs; [] without a network that has learned."""
    metric, noise = scene.metric("noise_cost"), scene.metric("noise_change")
    cost, change = scene.interval(deepest, metric), scene.interval(deepest, noise)
    if cost is None or change is None:
        return []
    return [
        f"{title}, {deepest.fields['blocks']} blocks: the noise of the maps (1 is white noise) changes by "
        f"{interval_text(change, noise)} from the first stage to the last; noise in place of the last maps costs "
        f"{interval_text(cost, metric)} of accuracy."
    ]
