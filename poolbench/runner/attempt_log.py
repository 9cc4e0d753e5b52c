"""The event log of a cell: started, resumed, epoch, failed, skipped. What its last attempt did."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from poolbench.files import DamagedFile, read_file, reading
from poolbench.runner.facts import is_count, is_list, is_mapping, is_number, is_seconds, is_text, wrong

EVENTS = "events.jsonl"
TICK = 0.001
"""Seconds between two events while the clock is behind: MLflow counts milliseconds."""


@dataclass(frozen=True)
class Failure:
    """How an attempt ended without a result; ``time`` in seconds since 1970."""

    status: Literal["failed", "skipped"]
    time: float
    reason: str
    traceback: str


@dataclass
class LoggedAttempt:
    """The last attempt at a cell: when it started, its epochs and facts, and how it failed, if it did."""

    started: float | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    reached: int = 0
    last: float = 0.0
    """The time of the last event."""

    def add(self, event: dict[str, Any]) -> None:
        """Take the next event of the log into account."""
        content = {name: value for name, value in event.items() if name not in ("event", "time")}
        self.failure = None
        time = self.last = event["time"] if event["event"] == "started" else self.in_order(event["time"])
        match event["event"]:
            case "started":
                self.started, self.history, self.facts, self.reached = time, [], content, 0
            case "resumed":
                self._resume(time, content)
            case "epoch":
                self.history.append({**content, "time": time})
                self.reached = content["epoch"]
            case "failed" | "skipped" as status:
                self.failure = Failure(status, time, str(content["reason"]), str(content.get("traceback", "")))

    def in_order(self, time: float) -> float:
        """Return the time of what came after the last event, moved behind it if the clock was set back meanwhile."""
        return time if time >= self.last else self.last + TICK

    def _resume(self, time: float, content: dict[str, Any]) -> None:
        after = content.pop("epoch")
        rows: Sequence[dict[str, float]] = content.pop("rows", ())
        changed = self.facts.get("environment_changed") or self.facts.get("environment") != content.get("environment")
        self.facts = {**content, "resumed_after": after, **({"environment_changed": True} if changed else {})}
        self.history = [row for row in self.history if row["epoch"] <= after]
        # The log was damaged: what the checkpoint knows, without the times.
        if len(self.history) < len(rows):
            self.history = [{**row, "time": time} for row in rows]
        self.started = time if self.started is None else self.started
        self.reached = after


def read_attempt(folder: Path) -> LoggedAttempt:
    """Return the last attempt in the log of a cell's folder; raise DamagedFile for a log that cannot be read."""
    path = folder / EVENTS
    attempt = LoggedAttempt()
    with reading(path):
        try:
            log = read_file(path)
        except FileNotFoundError:
            return attempt
    for event in _parse(log):
        attempt.add(event)
    return attempt


def read_epochs(folder: Path, start: int) -> tuple[list[dict[str, Any]], int]:
    """Return the epochs in the complete lines of the log from byte ``start``, and the byte after them."""
    path = folder / EVENTS
    try:
        new = read_file(path, start)
    except (OSError, DamagedFile):
        return [], start  # whoever executes the cell says what is wrong
    whole = new[: new.rfind(b"\n") + 1]
    return [row for row in _parse(whole) if row.pop("event") == "epoch"], start + len(whole)


def _parse(log: bytes) -> list[dict[str, Any]]:
    """Return the events of a log; lines that are truncated or damaged are ignored."""
    events = []
    for line in log.splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if _is_event(event):
            events.append(event)
    return events


def _is_event(event: Any) -> bool:
    if not is_mapping(event) or not is_seconds(event.get("time")):
        return False
    content = {name: value for name, value in event.items() if name != "event"}
    match event.get("event"):
        case "started":
            return not wrong(content)
        case "resumed":
            return is_count(content.get("epoch")) and is_list(content.get("rows", []), _is_row) and not wrong(content)
        case "epoch":
            return _is_row(content)
        case "failed" | "skipped":
            return is_text(content.get("reason")) and content["reason"] != ""
    return False


def _is_row(row: Any) -> bool:
    """Return whether a value is an epoch: its number, and numbers by name."""
    return is_mapping(row, is_number) and is_count(row.get("epoch"))
