"""Where a report's reader finds more: runs and views in the MLflow UI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Links:
    """``runs``: {cell id: address of its run, or a name that is no address}; ``views``: {task: {view: address}}."""

    runs: Mapping[str, str] = field(default_factory=dict)
    views: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
