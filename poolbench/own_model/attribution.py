"""Which stride makes the decisions unstable: each downsampling anti-aliased alone, and the change of features at it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from poolbench.analysis.bootstrap import bootstrap_interval
from poolbench.analysis.statistics import ALPHA
from poolbench.measures.shift import pair_sensitivity
from poolbench.own_model.model import own_path
from poolbench.own_model.passes import Answers, Passes
from poolbench.own_model.results import SiteEffect
from poolbench.own_model.shifts import Labels, window, windows
from poolbench.own_model.sites import KINDS, antialiased
from poolbench.surgery import Site

FEATURE_IMAGES = 64
STEP = (1, 1)


def attribute(passes: Passes, sites: Sequence[Site], before: Answers, labels: Labels) -> list[SiteEffect]:
    """Return the effect of every downsampling, in order of the network.

    ``before`` are the answers under :func:`~poolbench.own_model.shifts.windows` of the network as it is, on the images
    of ``passes``. Each downsampling is replaced by its anti-aliased counterpart in a copy of the network, with the
    weights unchanged, and the same crops are classified again. The weights were not trained for this: the accuracy
    may fall, so its change is part of the result.
    """
    distances = _distances(passes, sites)
    # The downsampling that removes most is picked out afterwards, so the intervals hold for all at once (Bonferroni).
    alpha = ALPHA / max(1, len(sites))
    return [_effect(passes, site, distances[site.path], before, labels, alpha) for site in sites]


def attribution_passes(images: int, sites: int) -> int:
    """Return the forward passes of :func:`attribute`, in images."""
    return (images * sites * 9 + 2 * min(images, FEATURE_IMAGES)) if sites else 0


def _effect(
    passes: Passes, site: Site, distances: tuple[float, float], before: Answers, labels: Labels, alpha: float
) -> SiteEffect:
    facts = own_path(site.path), KINDS[site.kind], site.stride, site.shape_in[-1], site.shape_out[-1], *distances
    try:
        network = antialiased(passes.network, site, (3, passes.size, passes.size)).to(passes.device)
        after = passes.of(network).answers(windows(passes.size))
    except Exception as error:
        # The user's code may look at the module that was replaced, and raise anything.
        return SiteEffect(*facts, refused=" ".join(str(error).split())[:160] or type(error).__name__)
    strata = None if labels is None else labels.numpy()
    flips = [answers.flipped.double().mean(dim=0) for answers in (before, after)]
    change = None
    if labels is not None:
        first, second = ((answers.decisions[0] == labels).double() for answers in (before, after))
        change = bootstrap_interval((second - first).numpy(), strata, share=False, alpha=alpha)
    return SiteEffect(
        *facts,
        flips_before=float(flips[0].mean()),
        flips_after=float(flips[1].mean()),
        removed=bootstrap_interval((flips[0] - flips[1]).numpy(), strata, share=False, alpha=alpha),
        accuracy_change=change,
    )


def _distances(passes: Passes, sites: Sequence[Site]) -> dict[str, tuple[float, float]]:
    """Return {path: (l2, aligned)} of the features behind each downsampling under a diagonal step of the window."""
    if not sites:
        return {}
    few = passes.on(passes.larger[:: max(1, len(passes) // FEATURE_IMAGES)][:FEATURE_IMAGES])

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for start, larger in few.batches():
            passes.counter.add(2 * len(larger))
            yield window(few.size)(larger, start), window(few.size, *STEP)(larger, start)

    # A window that moves down and to the right moves the content up and to the left.
    content = (-STEP[0], -STEP[1])
    table = pair_sensitivity(passes.network, [site.path for site in sites], pairs(), content)
    return dict(zip(table["path"], zip(table["l2"], table["aligned"], strict=True), strict=True))
