"""The event log of a cell: started, resumed, epoch, failed, skipped. What its last attempt did."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from poolbench.files import reading

EVENTS = "events.jsonl"
FIELDS: Mapping[str, tuple[str, type | None]] = {
    "started": ("", None),
    "resumed": ("epoch", int),
    "epoch": ("epoch", int),
    "failed": ("reason", str),
    "skipped": ("reason", str),
}
"""What each event has beside its time: the name of a field and its type."""


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
            log = path.read_bytes()
        except FileNotFoundError:
            return attempt
    for event in _parse(log):
        attempt.add(event)
    return attempt


def read_epochs(folder: Path, start: int) -> tuple[list[dict[str, Any]], int]:
    """Return the epochs in the complete lines of the log from byte ``start``, and the byte after them."""
    path = folder / EVENTS
    if not path.exists():
        return [], start
    with open(path, "rb") as file:
        file.seek(start)
        new = file.read()
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
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return False
    if event["event"] not in FIELDS or not isinstance(event.get("time"), (int, float)):
        return False
    name, kind = FIELDS[event["event"]]
    rows = event.get("rows", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return False
    return kind is None or (isinstance(event.get(name), kind) and event[name] != "")
