"""Two results side by side, as a page and as Markdown."""

from __future__ import annotations

from pathlib import Path

from poolbench.analysis.comparison import Change, Comparison
from poolbench.analysis.statistics import Interval
from poolbench.core import Metric
from poolbench_tracking.comparison_report import write_comparison

ACCURACY = Metric("accuracy", "accuracy", True, 0.01)


def change(label: str, mean: float, verdict: str) -> Change:
    interval = Interval(mean, mean - 0.01, mean + 0.01, 5)
    return Change("study", label, ACCURACY, Interval(0.5, 0.4, 0.6, 5), Interval(0.5, 0.4, 0.6, 5), interval, verdict)


def written(found: Comparison, folder: Path) -> tuple[str, str]:
    path = write_comparison(found, ("before | a", "<b>after</b>"), folder)
    return path.read_text(), path.with_suffix(".md").read_text()


def test_what_changed_comes_first(tmp_path: Path) -> None:
    changes = [change("pool=max", 0.001, "no difference that matters"), change("pool=avg", -0.1, "worse"),
               change("pool=blur", 0.0, "equal")]  # fmt: skip
    page, markdown = written(
        Comparison(changes, ["study: pool=lp: 5 of 5"], ["study: pool=aps: only before"]), tmp_path
    )
    for text in (page, markdown):
        assert "3 numbers are in both" in text
        assert "1 of them are equal for every seed; the others: no difference that matters: 1, worse: 1." in text
        assert text.index("pool=avg") < text.index("pool=max")
        assert "study: pool=aps: only before" in text
        assert "study: pool=lp: 5 of 5" in text
        assert "&lt;b&gt;after&lt;/b&gt;" in text
        assert "<b>after" not in text
    assert (
        "| pool=avg | accuracy ↑ | 0.500 ± 0.100 | 0.500 ± 0.100 | -0.100 \\[-0.110, -0.090\\] | 5 | worse |"
        in markdown
    )
    assert "pool=blur" not in page


def test_nothing_changed(tmp_path: Path) -> None:
    page, markdown = written(Comparison([change("pool=max", 0.0, "equal")], [], []), tmp_path)
    for text in (page, markdown):
        assert "1 of them are equal for every seed." in text
        assert "Not compared" not in text
    page, _ = written(Comparison([change("pool=max", 0.001, "undecided")], [], []), tmp_path)
    assert "Nothing changed by more than the noise" in page
