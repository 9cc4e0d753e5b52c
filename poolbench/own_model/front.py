"""The picture of an advice: every remedy by its flips and its accuracy, and the front that no other remedy beats."""

from __future__ import annotations

from matplotlib.figure import Figure

from poolbench.own_model.advice import Advice, Outcome
from poolbench.own_model.remedies import Kind
from poolbench.plots.legends import key
from poolbench.plots.style import GREY, PALETTE

NAMES: dict[Kind, str] = {
    "none": "as it is",
    "averaged": "crops averaged",
    "confident": "most confident crop",
    "swapped": "pools swapped",
    "statistics": "swapped, BatchNorm anew",
    "fine_tuned": "fine-tuned",
}
SHOWN = 0.15
"""Loss of accuracy up to which remedies are drawn."""
COLOURS = dict(zip(NAMES, ("#222222", *PALETTE), strict=False))


def front(found: Advice) -> Figure:
    """Draw the share of steps that change the decision against accuracy (agreement without labels), both in percent.

    Crosses are 95 % intervals; dominated remedies are hollow; numbers are those of the table. Remedies that
    cost more than ``SHOWN`` of accuracy are left out: the others would lie on each other.
    """
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    shown = [(number, one) for number, one in enumerate(found.outcomes) if is_shown(one, found)]
    for number, one in shown:
        colour, x, y = COLOURS[one.trial.remedy.kind], one.flips, one.right
        axes.plot([100 * x.low, 100 * x.high], [100 * y.mean] * 2, color=colour, linewidth=1, alpha=0.5)
        axes.plot([100 * x.mean] * 2, [100 * y.low, 100 * y.high], color=colour, linewidth=1, alpha=0.5)
        face = "white" if one.dominated_by else colour
        axes.plot([100 * x.mean], [100 * y.mean], "o", color=colour, markerfacecolor=face, markersize=_size(one))
        axes.annotate(str(number), (100 * x.mean, 100 * y.mean), (5, 4), textcoords="offset points", fontsize=7.5)
    if found.chosen is not None:
        place = [100 * found.chosen.flips.mean], [100 * found.chosen.right.mean]
        axes.plot(*place, "o", color=GREY, markerfacecolor="none", markersize=_size(found.chosen) + 7)
    what = "accuracy" if found.data.is_labelled else "agreement with the network as it is"
    axes.set(xlabel="one-pixel steps that change the decision / %\u00a0\u2193", ylabel=f"{what} / %\u00a0\u2191")
    kinds = dict.fromkeys(one.trial.remedy.kind for _, one in shown)
    figure.legend(
        handles=[key(NAMES[kind], COLOURS[kind], "", "o") for kind in kinds], loc="outside upper center", ncols=3
    )
    return figure


def is_shown(one: Outcome, found: Advice) -> bool:
    """Return whether a remedy is in the picture."""
    return one.right.mean >= found.outcomes[0].right.mean - SHOWN


def _size(one: Outcome) -> float:
    """Return the diameter of a remedy's dot in points: its area is the time of an answer."""
    return float(5.0 * min(one.slowdown, 9.0) ** 0.5)
