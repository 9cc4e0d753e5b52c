"""What can be done about unstable decisions: pools swapped with or without training, and remedies at test time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from poolbench.own_model.results import SiteEffect

Kind = Literal["none", "swapped", "statistics", "fine_tuned", "averaged", "confident"]
WINDOWS = (2, 3)
"""Sides of the square of neighbouring crops that the remedies at test time look at."""
MOST_WORST = 2


@dataclass(frozen=True)
class Remedy:
    """One way to make decisions stable.

    ``swapped``: another pool at ``sites`` (paths of downsamplings, ``where`` in words), weights kept. ``statistics``:
    the same, and the statistics of BatchNorm are estimated anew. ``fine_tuned``: the same, and trained on; without a
    pool the network as it is, trained on, which tells training from pooling. ``averaged``: the logits of
    ``window`` x ``window`` neighbouring crops are averaged. ``confident``: of these crops the one with the most
    probable class decides (after Shifman and Weiss 2024).
    """

    kind: Kind
    pool: str = ""
    where: str = ""
    sites: tuple[str, ...] = ()
    window: int = 0

    @property
    def is_trained(self) -> bool:
        return self.kind == "fine_tuned"

    @property
    def is_at_test_time(self) -> bool:
        return self.window > 0

    @property
    def name(self) -> str:
        """The remedy in words."""
        swap = f"{self.pool} at {self.where}" if self.pool else "as it is"
        return {
            "none": swap,
            "swapped": f"{swap}, weights kept",
            "statistics": f"{swap}, BatchNorm estimated anew",
            "fine_tuned": f"{swap}, fine-tuned",
            "averaged": f"logits of {self.window}x{self.window} crops averaged",
            "confident": f"most confident of {self.window}x{self.window} crops",
        }[self.kind]


AS_IT_IS = Remedy("none")


@dataclass(frozen=True)
class Possible:
    """What a network and its images allow: BatchNorm to estimate anew, labels to train with, the margin in px."""

    batch_norm: bool
    labels: bool
    margin: int


def remedies(
    effects: Sequence[SiteEffect], stem: frozenset[str], pools: Sequence[str], possible: Possible
) -> list[Remedy]:
    """Return the remedies to try, the cheap ones first.

    ``effects`` are those of the network's downsamplings, ``stem`` the paths of those in its stem.
    """
    windows = [window for window in WINDOWS if window + 1 <= possible.margin]
    found = [AS_IT_IS, *(Remedy(kind, window=window) for window in windows for kind in ("averaged", "confident"))]
    places = _places(effects, stem)
    found += [Remedy("swapped", pool, where, sites) for pool in pools for where, sites in places.items()]
    if possible.batch_norm:
        found += [Remedy("statistics", pool, where, sites) for pool in pools for where, sites in places.items()]
    if possible.labels:
        found.append(Remedy("fine_tuned"))
        found += [Remedy("fine_tuned", pool, where, sites) for pool in pools for where, sites in places.items()]
    return found


def _places(effects: Sequence[SiteEffect], stem: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """Return {words: paths} of the choices of downsamplings, without those that equal an earlier one."""
    usable = [effect for effect in effects if not effect.refused]
    everywhere = tuple(effect.path for effect in usable)
    choices = {
        "all strides": everywhere,
        "all but the stem": tuple(path for path in everywhere if path not in stem),
        "the worst strides": worst_sites(usable),
    }
    found: dict[str, tuple[str, ...]] = {}
    for words, sites in choices.items():
        if sites and sites not in found.values():
            found[words] = sites
    return found


def worst_sites(effects: Sequence[SiteEffect]) -> tuple[str, ...]:
    """Return the paths of up to two downsamplings whose anti-aliasing removes most flips, in order of the network.

    Those for which it clearly removes any; else the one with the largest mean.
    """
    known = [effect for effect in effects if effect.removed is not None]
    ranked = sorted(known, key=lambda effect: -effect.removed.mean if effect.removed else 0.0)
    certain = [effect for effect in ranked if effect.removed and effect.removed.low > 0]
    chosen = {effect.path for effect in (certain or ranked[:1])[:MOST_WORST]}
    return tuple(effect.path for effect in effects if effect.path in chosen)
