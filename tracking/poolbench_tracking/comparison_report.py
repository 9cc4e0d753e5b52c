"""Two sets of results side by side, as a page and as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from poolbench.analysis.comparison import EQUAL, Change, Comparison
from poolbench.analysis.statistics import ALPHA
from poolbench.analysis.text import change_text, interval_text, metric_label
from poolbench.files import storage, text_bytes, write_atomically
from poolbench_tracking.report import markdown_text, templates


@dataclass(frozen=True)
class Line:
    """A change as text."""

    group: str
    metric: str
    before: str
    after: str
    change: str
    verdict: str
    seeds: int


def write_comparison(found: Comparison, names: tuple[str, str], folder: Path) -> Path:
    """Write comparison.html and comparison.md into ``folder``; return the path of the HTML.

    ``names`` say what was compared. Raises StorageError if the folder cannot be written.
    """
    moved = [change for change in found.changes if change.verdict != EQUAL]
    counts = Counter(change.verdict for change in moved)
    facts = {
        "names": names,
        "tables": _tables([change for change in moved if change.verdict in ("better", "worse")]),
        "others": _tables([change for change in moved if change.verdict not in ("better", "worse")]),
        "total": len(found.changes),
        "equal": found.count(EQUAL),
        "counts": ", ".join(f"{verdict}: {count}" for verdict, count in counts.most_common()),
        "by_chance": f"{ALPHA * len(moved):.1f}",
        "learned": found.learned,
        "apart": found.apart,
    }
    markdown, page = templates(finalize=markdown_text), templates(autoescape=True)
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, environment in (("comparison.md", markdown), ("comparison.html", page)):
            write_atomically(folder / name, text_bytes(environment.get_template(f"{name}.j2").render(facts)))
    return folder / "comparison.html"


def _tables(changes: Sequence[Change]) -> dict[str, list[Line]]:
    """Return the lines of each benchmark."""
    found: dict[str, list[Line]] = {}
    for change in changes:
        metric = change.metric
        line = Line(
            change.label,
            metric_label(metric),
            interval_text(change.before, metric),
            interval_text(change.after, metric),
            change_text(change.change, metric, metric.scale == "log"),
            change.verdict,
            change.change.n,
        )
        found.setdefault(change.benchmark, []).append(line)
    return found
