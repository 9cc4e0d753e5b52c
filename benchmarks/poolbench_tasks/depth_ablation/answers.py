"""The smallest sufficient depth, and what the last maps carry, as sentences of the report."""

from __future__ import annotations

from poolbench.analysis.groups import Group
from poolbench.analysis.sufficiency import Sufficient, sufficient
from poolbench.analysis.text import interval_text
from poolbench.plots.scene import Scene
from poolbench_tasks.depth_ablation import FOLDS


def sufficient_depths(scene: Scene) -> list[str]:
    """Return a sentence per data set, pool and head on the depth that suffices, and one on the last stage.

    Networks that have not learned count for the depth.
    """
    sentences = []
    for title, members in scene.panels(scene.groups, ("dataset", "pool", "head"), within=("blocks", "variant")).items():
        # A training that fails counts against its depth, as in any choice by cross-validation.
        values = {int(str(group.fields["blocks"])): _accuracies(group) for group in members}
        found = sufficient(values, FOLDS)
        if found is not None:
            sentences.append(_sentence(title or str(members[0].fields["head"]), found, max(values)))
        deepest = max(members, key=lambda group: int(str(group.fields["blocks"])))
        sentences += _carried(scene, title or str(deepest.fields["head"]), deepest)
    return sentences


def _accuracies(group: Group) -> dict[int, float]:
    return {result.cell.seed: result.metrics["accuracy"] for result in group.results}


def _sentence(title: str, found: Sufficient, deepest: int) -> str:
    numbers = (
        f"(accuracy {found.mean:.3f}; best: {found.best} with {found.best_mean:.3f}, standard error "
        f"{found.standard_error:.3f}, {found.n} folds)"
    )
    low, high = found.without_one
    same = "the answer is the same" if low == high == found.size else f"the answer is {low} to {high}"
    if found.size == deepest:
        ruled = f"no smaller number of blocks than {deepest} is enough; more were not tried"
    else:
        ruled = f"{found.size} block{'s are' if found.size > 1 else ' is'} enough"
    return f"{title}: by the one-standard-error rule {ruled} {numbers}. With any one fold left out {same}."


def _carried(scene: Scene, title: str, deepest: Group) -> list[str]:
    """Return how noisy the last maps look and what the last block adds; [] without a network that has learned."""
    noise, gain = scene.metric("excess_change"), scene.metric("last_block_gain")
    change, gained = scene.interval(deepest, noise), scene.interval(deepest, gain)
    if change is None or gained is None:
        return []
    return [
        f"{title}, {deepest.fields['blocks']} blocks: with depth maps look noisier, but so does the image when it is "
        f"averaged to their size. Beyond that the noise (1 is white noise) changes by {interval_text(change, noise)} "
        "from the first stage to the last of 8 px or more. The last block adds "
        f"{interval_text(gained, gain)} to the accuracy with which a linear probe reads the class."
    ]
