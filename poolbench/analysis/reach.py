"""Whether results are a test of a claim: the data set, the training and the accuracy that the claim is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pandas as pd

from poolbench.claim import Reach

NOT_A_TEST: Literal["not a test of this claim"] = "not a test of this claim"


def within_reach(
    reach: Reach, sides: Sequence[pd.DataFrame], preset: str, accuracies: pd.Series[float]
) -> tuple[list[pd.DataFrame], str]:
    """Return the rows of each side that are within reach, and why the results are no test ("" if they are one).

    ``preset`` is that of all rows, ``accuracies`` are those of the cells by id. They are no test if no row of a
    side is within reach by data set and training, or if those that are do not reach the accuracy on average.
    """
    found = [rows[_datasets(reach, rows) & _trained(reach, rows, preset)] for rows in sides]
    reasons = []
    if any(len(rows) and not _datasets(reach, rows).any() for rows in sides):
        reasons.append(f"it is about {_words(reach.datasets)}")
    if any(len(rows) and not _trained(reach, rows, preset).any() for rows in sides):
        trained = [f"the preset {_words(reach.presets)}"] if reach.presets else []
        trained += [f"{reach.min_epochs} epochs or more"] if reach.min_epochs else []
        epochs = max(int(rows["epochs"].max()) for rows in sides if len(rows))
        reasons.append(f"it is about training for {' or '.join(trained)}, these networks had {epochs}")
    if not reasons and all(map(len, found)):
        cells = pd.concat(found)["cell"].unique()
        mean = float(accuracies.reindex(cells).mean())
        if mean < reach.min_accuracy:
            reasons.append(f"it is about networks with an accuracy of {reach.min_accuracy:g} or more, not {mean:.2f}")
    elif not reasons and any(map(len, sides)):
        reasons.append("no network of one side is within its reach")
    why = "; ".join(reasons)
    return found, f"{why} ({reach.note})" if why and reach.note else why


def _datasets(reach: Reach, rows: pd.DataFrame) -> pd.Series[bool]:
    return rows["dataset"].isin(reach.datasets) | (not reach.datasets)


def _trained(reach: Reach, rows: pd.DataFrame, preset: str) -> pd.Series[bool]:
    if rows.empty or (not reach.presets and not reach.min_epochs):
        return pd.Series(True, index=rows.index)
    enough = (
        rows["epochs"].astype(float) >= reach.min_epochs if reach.min_epochs else pd.Series(False, index=rows.index)
    )
    return enough | (preset in reach.presets)


def _words(names: Sequence[str]) -> str:
    return " or ".join(names)
