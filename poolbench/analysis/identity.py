"""Whether two results must agree to the last bit, and whether they do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from poolbench.core import COST_METRICS, Result

ENVIRONMENT = (
    "torch", "torchvision", "timm", "numpy", "device_name", "cpu_capability", "kernel_variables", "threads",
    "deterministic",
)  # fmt: skip
"""The facts about a run, beside configuration and data, that may change the last bits."""
COSTS = frozenset(metric.name for metric in COST_METRICS)


def fingerprint(result: Result) -> str:
    """Return the digest of everything but the code that may change the bits of a finished result.

    That is the configuration, the data, how many seeds were stacked, and ``ENVIRONMENT``. The result is "" where one
    of them is unknown, or where a resumed training has seen two environments.
    """
    environment, data = result.facts.get("environment", {}), result.facts.get("data", {})
    if result.facts.get("environment_changed") or "digest" not in data or not set(ENVIRONMENT) <= set(environment):
        return ""
    known = {name: environment[name] for name in ENVIRONMENT}
    return _digest({"cell": result.cell.id, "data": data["digest"], "replicas": result.facts.get("replicas"), **known})


def numbers_digest(values: Mapping[str, float]) -> str:
    """Return the digest of {metric: value}, equal for equal bits; measured times and memory do not count."""
    return _digest({name: float(value).hex() for name, value in values.items() if name not in COSTS})


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
