"""Fingerprints change with whatever may change bits, and digests with the bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from poolbench.analysis.identity import ENVIRONMENT, fingerprint, numbers_digest
from poolbench.core import Cell, Result

FACTS: dict[str, Any] = {
    "environment": {
        "torch": "2.15.0", "torchvision": "0.29", "timm": "1.0", "numpy": "2.1", "device_name": "EPYC",
        "cpu_capability": "AVX512", "kernel_variables": {}, "threads": 1, "deterministic": False,
        "pandas": "2.3", "git_commit": "abc", "mlflow": "3.14",
    },
    "data": {"name": "tiny", "digest": "d", "source": "here"},
    "replicas": 1,
}  # fmt: skip


@pytest.fixture
def result(cell_of: Callable[..., Cell]) -> Result:
    return Result(cell_of("max", 0), "finished", facts=FACTS)


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_the_environment_is_part_of_the_fingerprint(result: Result, name: str) -> None:
    other = {**FACTS, "environment": {**FACTS["environment"], name: "other"}}
    assert fingerprint(replace(result, facts=other)) not in ("", fingerprint(result))
    unknown = {key: value for key, value in FACTS["environment"].items() if key != name}
    assert fingerprint(replace(result, facts={**FACTS, "environment": unknown})) == ""


def test_configuration_data_and_stacking_are_part_of_the_fingerprint(
    result: Result, cell_of: Callable[..., Cell]
) -> None:
    changes = (
        replace(result, cell=cell_of("max", 1)),
        replace(result, facts={**FACTS, "data": {"digest": "e"}}),
        replace(result, facts={**FACTS, "replicas": 4}),
    )
    assert len({fingerprint(result), *(fingerprint(changed) for changed in changes)}) == 4


@pytest.mark.parametrize("name", ["pandas", "git_commit", "mlflow"])
def test_what_cannot_change_bits_is_not(result: Result, name: str) -> None:
    other = {**FACTS, "environment": {**FACTS["environment"], name: "other"}}
    assert fingerprint(replace(result, facts=other)) == fingerprint(result)


def test_a_training_in_two_environments_has_no_fingerprint(result: Result) -> None:
    assert fingerprint(replace(result, facts={**FACTS, "environment_changed": True})) == ""


def test_digests_are_of_the_last_bit() -> None:
    values = {"accuracy": 0.1 + 0.2, "V": 0.5, "cost_forward_ms": 3.0}
    assert numbers_digest(values) == numbers_digest({"V": 0.5, "accuracy": 0.30000000000000004})
    assert numbers_digest(values) != numbers_digest({**values, "V": float(np.nextafter(0.5, 1))})
    assert numbers_digest(values) == numbers_digest({**values, "cost_forward_ms": 4.0})
    assert numbers_digest({"a": 1.0, "b": 2.0}) != numbers_digest({"a": 2.0, "b": 1.0})
