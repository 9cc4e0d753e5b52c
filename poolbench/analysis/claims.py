"""Published claims, judged on results paired by seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from poolbench.analysis.frames import varying_fields
from poolbench.analysis.statistics import Interval, paired_difference
from poolbench.core import Claim, Metric, Scalar

Ruling = Literal["holds", "does not hold", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """What the results say about a claim.

    ``effect`` is better minus worse with its 95 % interval, signed so that positive values support the
    claim; None with fewer than two pairs. ``note`` names what weakens or prevents the ruling.
    """

    claim: Claim
    ruling: Ruling
    effect: Interval | None
    note: str = ""


def judge(claim: Claim, benchmark: str, metric: Metric, frame: pd.DataFrame) -> Verdict:
    """Judge one claim of a benchmark on a results frame; ``metric`` is the one that the claim names.

    The claim holds if the 95 % t interval of the paired differences lies above 0. Cells are paired if
    they agree in seed and in every field that the claim does not fix. Differences of one seed are
    averaged first, so n is the number of seeds, not of cells. Networks that have not learned are left out.
    """
    rows = frame[(frame["benchmark"] == benchmark) & (frame["metric"] == metric.name)]
    rows = _where(rows, claim.where)
    involved = [_where(rows, side) for side in (claim.better, claim.worse)]
    sides = [side[side["learned"]] for side in involved]
    fixed = {*claim.better, *claim.worse, *claim.where}
    # A field cannot pair cells if the sides share no value of it (pool, if one side has no pooling layers).
    keys = [
        name
        for name in varying_fields(pd.concat(sides))
        if name not in fixed and set(sides[0][name].dropna()) & set(sides[1][name].dropna())
    ]
    better, worse = (side.groupby(["seed", *keys], dropna=False)["value"].mean() for side in sides)
    pairs = pd.concat([better, worse], axis=1, keys=["better", "worse"], join="inner").dropna()
    per_seed = pairs.groupby("seed").mean()
    total = sum(map(len, involved))
    dropped = total - sum(map(len, sides))
    note = f"left out because not learned: {dropped} of {total} networks" if dropped else ""
    if len(per_seed) < 2:
        return Verdict(claim, "undecided", None, "; ".join(filter(None, ["fewer than two pairs", note])))
    sign = 1 if metric.higher_is_better else -1
    interval = paired_difference((sign * per_seed["better"]).tolist(), (sign * per_seed["worse"]).tolist()).interval
    ruling: Ruling = "undecided"
    if interval.low > 0:
        ruling = "holds"
    elif interval.high < 0:
        ruling = "does not hold"
    return Verdict(claim, ruling, interval, note)


def _where(frame: pd.DataFrame, conditions: Mapping[str, Scalar]) -> pd.DataFrame:
    """Return the rows that have all these values; no rows if a field does not exist."""
    for name, value in conditions.items():
        frame = frame[frame[name] == value] if name in frame.columns else frame.iloc[:0]
    return frame
