"""Consistency under rotation: the angle 0, which agrees with itself, is one of the angles of the mean.

Imitates a mean over a whole table whose first row is the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

import poolbench_tasks.rotation_variance.measure
from poolbench.plugins import import_code

patching = import_code(str(Path(__file__).with_name("_patching.py")))


@patching.in_place_of(poolbench_tasks.rotation_variance.measure, "_decision_metrics")
def with_the_reference(original: Callable[..., dict[str, float]], by_angle: pd.DataFrame) -> dict[str, float]:
    """Average the consistencies over all angles, that of 0 degrees being 1."""
    angles = by_angle["angle"].nunique()
    found = original(by_angle)
    wrong = {
        name: (value * (angles - 1) + 1) / angles for name, value in found.items() if name.startswith("consistency")
    }
    return {**found, **wrong}
