"""Published sentences about metrics, and where they may be judged: data that tasks declare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from poolbench.core import Scalar


@dataclass(frozen=True)
class Reach:
    """Under which conditions a claim may be judged; elsewhere its effect is shown, but it is no test of the claim.

    ``datasets`` (empty: all). The training must follow one of ``presets`` or last for at least ``min_epochs``: if
    both are given, either is enough; if none is, any training will do. ``min_accuracy`` is what the networks of the
    claim must reach on average. ``note`` says in words what the claim is about.
    """

    presets: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    min_epochs: int = 0
    min_accuracy: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """A published sentence about a metric, judged on cells paired by seed.

    With ``better`` and ``worse``, the fields in which two sides differ, it says that the first side is better.
    Without them it says that the metric exceeds, in each network, the metric ``minus`` and the number ``target``
    (those that are given). ``says`` "equal" claims that there is no difference beyond the margin instead.

    ``where`` restricts all cells. With ``than``, the claim is that the effect is larger under ``where`` than under it.
    ``target_runs`` is the number of runs behind a published ``target``, whose scatter widens the interval (0: exact).
    ``margin`` replaces the metric's tolerance. Raises ValueError if the claim compares with nothing.
    """

    name: str
    sentence: str
    source: str
    metric: str
    better: Mapping[str, Scalar] = field(default_factory=dict)
    worse: Mapping[str, Scalar] = field(default_factory=dict)
    where: Mapping[str, Scalar] = field(default_factory=dict)
    than: Mapping[str, Scalar] = field(default_factory=dict)
    minus: str = ""
    target: float | None = None
    target_runs: int = 0
    says: Literal["above", "equal"] = "above"
    margin: float | None = None
    reach: Reach = Reach()

    def __post_init__(self) -> None:
        if bool(self.better) != bool(self.worse) or not (self.better or self.minus or self.target is not None):
            raise ValueError(f"claim {self.name} compares with nothing: give better and worse, or minus, or target")
