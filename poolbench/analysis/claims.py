"""Published sentences, judged on cells paired by seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from poolbench.analysis.groups import varying_fields
from poolbench.analysis.statistics import Interval, paired_difference
from poolbench.core import Claim, Scalar
from poolbench.task import Benchmark

Ruling = Literal["holds", "does not hold", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """What the results say of a claim.

    ``effect`` is better minus worse, oriented so that positive speaks for the claim; None where there
    are fewer than two pairs. ``note`` says what weakens or prevents the ruling.
    """

    claim: Claim
    ruling: Ruling
    effect: Interval | None
    note: str = ""


def judge(claim: Claim, benchmark: Benchmark, frame: pd.DataFrame) -> Verdict:
    """Judge one claim: it holds where the 95 % interval of the paired differences lies above 0.

    Cells pair when they agree in seed and in every field that the claim leaves free; the differences
    of one seed are averaged first, so that seeds count and not cells. Networks that have not learned
    are left out.
    """
    rows = frame[(frame["benchmark"] == benchmark.name) & (frame["metric"] == claim.metric)]
    rows = _where(rows, claim.where)
    involved = [_where(rows, side) for side in (claim.better, claim.worse)]
    sides = [side[side["learned"]] for side in involved]
    fixed = {*claim.better, *claim.worse, *claim.where}
    # A field without a value in common (pool, beside networks without pooling) cannot pair.
    keys = [
        name
        for name in varying_fields(pd.concat(sides))
        if name not in fixed and set(sides[0][name].dropna()) & set(sides[1][name].dropna())
    ]
    better, worse = (side.groupby(["seed", *keys], dropna=False)["value"].mean() for side in sides)
    pairs = pd.concat([better, worse], axis=1, keys=["better", "worse"], join="inner").dropna()
    per_seed = pairs.groupby("seed").mean()
    dropped = sum(map(len, involved)) - sum(map(len, sides))
    note = f"not learned and left out: {dropped} of {sum(map(len, involved))} networks" if dropped else ""
    if len(per_seed) < 2:
        return Verdict(claim, "undecided", None, "; ".join(filter(None, ["fewer than two pairs", note])))
    sign = 1 if benchmark.metric(claim.metric).higher_is_better else -1
    interval = paired_difference((sign * per_seed["better"]).tolist(), (sign * per_seed["worse"]).tolist()).interval
    ruling: Ruling = "undecided"
    if interval.low > 0:
        ruling = "holds"
    elif interval.high < 0:
        ruling = "does not hold"
    return Verdict(claim, ruling, interval, note)


def _where(frame: pd.DataFrame, conditions: Mapping[str, Scalar]) -> pd.DataFrame:
    for name, value in conditions.items():
        frame = frame[frame[name] == value] if name in frame.columns else frame.iloc[:0]
    return frame
