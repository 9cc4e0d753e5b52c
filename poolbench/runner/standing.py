"""How far a running command is, in a file beside its invocation, for other processes to read."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass

from poolbench.files import read_file, write_json
from poolbench.runner.facts import is_seconds
from poolbench.runner.invocation import Invocation

SUFFIX = ".progress"


@dataclass(frozen=True)
class Standing:
    """Cells that have ended, all cells of the command, those that failed, and the expected end (seconds since 1970)."""

    done: int
    total: int
    failed: int
    end: float | None


def publish(invocation: Invocation, standing: Standing) -> None:
    """Write how far a command is; where that fails, nothing is lost."""
    with suppress(OSError):
        write_json(invocation.path.with_suffix(SUFFIX), asdict(standing))


def published(invocation: Invocation) -> Standing | None:
    """Return how far a command said it is, None if it said nothing."""
    try:
        content = json.loads(read_file(invocation.path.with_suffix(SUFFIX)))
        done, total, failed = (int(content[name]) for name in ("done", "total", "failed"))
        end = content["end"]
        return Standing(done, total, failed, float(end) if is_seconds(end) else None)
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def withdraw(invocation: Invocation) -> None:
    """Delete what a command that has ended said."""
    with suppress(OSError):
        invocation.path.with_suffix(SUFFIX).unlink(missing_ok=True)
