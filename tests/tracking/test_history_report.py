"""The trends as Markdown and as a page: order, sparklines, gaps, bands, steps, commits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from math import nan
from typing import Any
from xml.etree import ElementTree

import pytest

from poolbench.analysis.history import Night, Step, Trend
from poolbench.analysis.statistics import Interval
from poolbench.core import Metric
from poolbench_tracking.history_report import HEIGHT, WIDTH, by_importance, drawing, sparkline, to_html, to_markdown

ACCURACY = Metric("accuracy", "accuracy", True, 0.01)
NIGHTS = tuple(f"2026-11-{number:02}T02:17:00+00:00" for number in range(17, 22))
DROP = Step(3, 0.85, 0.81)
BAD = {"last_good": Night(NIGHTS[2], "abc1234" + "0" * 33), "first_bad": Night(NIGHTS[3], "def5678" + "0" * 33)}


def trend(label: str, values: Sequence[float] = (0.85, 0.86, 0.84, 0.81, 0.81), **changes: Any) -> Trend:
    fields: dict[str, Any] = {"bad": frozenset(), "band": Interval(0.85, 0.83, 0.87, 3), "step": None,
                              "last_good": None, "first_bad": None, "metric": ACCURACY}  # fmt: skip
    return Trend("study", f"group {label}", label, nights=NIGHTS, values=tuple(values), **fields | changes)


def row(text: str, label: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if f"| {label} |" in line)
    return [part.strip() for part in line.strip("|").split("|")]


def svgs(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
        ([0.7, nan, 0.9], "▁\u00a0█"),
        ([0.5, 0.5], "▄▄"),
        ([nan, nan], "\u00a0\u00a0"),
        ([], ""),
    ],
)
def test_a_sparkline_spans_its_values(values: Sequence[float], expected: str) -> None:
    assert sparkline(values) == expected


def test_what_is_regressed_comes_first_and_what_is_not_worse_is_folded() -> None:
    loss = Metric("loss", "loss", False, 0.01)
    found = [
        trend("fine"),
        trend("tiny step", step=Step(3, 0.85, 0.845)),
        trend("better", step=Step(3, 0.8, 0.9)),
        trend("worse", step=Step(3, 0.9, 0.8)),
        trend("loss much worse", step=Step(3, 0.3, 0.6), metric=loss),
        trend("broken", **BAD),
        trend("broken with a step", step=DROP, **BAD),
    ]
    important, others = by_importance(found)
    assert [item.label for item in important] == [
        "broken with a step", "broken", "loss much worse", "worse", "better",
    ]  # fmt: skip
    assert [item.label for item in others] == ["tiny step", "fine"]
    text = to_markdown(found)
    assert "2 groups regressed, 4 trends with a step of the tolerance or more." in text
    positions = [text.index(f"| {item.label} |") for item in (*important, *others)]
    assert positions == sorted(positions)
    assert positions[4] < text.index("<details>") < positions[5] < text.index("</details>")
    page = to_html(found)
    assert page.index("broken with a step</p>") < page.index("loss much worse</p>") < page.index("<details>")


def test_a_row_says_what_happened() -> None:
    found = row(to_markdown([trend("max", step=DROP, bad=frozenset(NIGHTS[3:]), **BAD)]), "max")
    assert found == [
        "study", "max", "accuracy ↑", "`▇█▅▁▁`", "0.810", "0.830 to 0.870",
        "from night 2026-11-20: 0.850 -> 0.810", "since night 2026-11-20, `abc1234..def5678`",
    ]  # fmt: skip
    assert row(to_markdown([trend("max", [nan] * 5, band=None)]), "max")[4:] == ["-", "-", "-", "-"]


@pytest.mark.parametrize(
    ("good", "bad", "expected"),
    [
        ("a" * 40, "b" * 40, "`aaaaaaa..bbbbbbb`"),
        ("b" * 40, "b" * 40, "`bbbbbbb` as in the last good night: not the code"),
        (None, "b" * 40, "`bbbbbbb`, no good night before"),
        ("", "b" * 40, "`bbbbbbb`, no good night before"),
        ("a" * 40, "", "since night 2026-11-20"),
    ],
)
def test_the_range_of_commits(good: str | None, bad: str, expected: str) -> None:
    before = None if good is None else Night(NIGHTS[2], good)
    text = row(to_markdown([trend("max", last_good=before, first_bad=Night(NIGHTS[3], bad))]), "max")[7]
    assert text.endswith(expected)
    assert text.startswith("since night 2026-11-20")


def test_labels_cannot_break_the_table_or_the_page() -> None:
    found = [trend("a|b <script>x</script>`c")]
    assert "| a\\|b &lt;script&gt;x&lt;/script&gt;\\`c |" in to_markdown(found)
    assert "<script>" not in to_html(found)


def test_the_page_draws_band_line_gap_step_and_bad_nights() -> None:
    values = (0.85, nan, 0.84, 0.81, 0.81)
    shown = trend("max", values, step=DROP, bad=frozenset(NIGHTS[3:]), **BAD)
    (svg,) = svgs(to_html([shown]))
    shapes = {child.get("class") or child.tag: child for child in svg}
    dots = svg.findall("circle")
    path = shapes["line"].get("d") or ""
    assert path.count("M") == 2
    points = [tuple(map(float, point.split())) for point in re.findall(r"[ML]([\d. ]+)", path)]
    assert len(points) == 4
    assert [(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in dots] == points[2:]
    # Higher values are further up, and all of it is inside.
    assert points[0][1] < points[1][1] < points[2][1] == points[3][1]
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in points)
    top, height = float(shapes["band"].get("y", "")), float(shapes["band"].get("height", ""))
    assert top < points[0][1] < points[1][1] < top + height < points[2][1]
    step = float((shapes["step"].get("d") or "")[1:].split()[0])
    assert points[1][0] < step < points[2][0]
    title = svg.findtext("title") or ""
    assert svg.get("role") == "img"
    for part in ("accuracy over 5 nights: last 0.810", "band 0.830 to 0.870", "step from night 2026-11-20",
                 "regressed in 2026-11-20, 2026-11-21"):  # fmt: skip
        assert part in title


def test_extremes_have_a_drawing() -> None:
    flat = drawing(trend("max", [0.85] * 5, band=Interval(0.85, 0.85, 0.85, 5)))
    assert flat.band == (HEIGHT / 2, 1.0)
    absent = drawing(trend("max", [nan] * 5, band=None, bad=frozenset(NIGHTS[:1])))
    assert (absent.path, absent.band, len(absent.bad)) == ("", None, 1)
    one = replace(trend("max", [0.85], band=None), nights=NIGHTS[:1])
    assert drawing(one).path.startswith("M")
    assert len(svgs(to_html([one]))) == 1


def test_no_nights_are_said_to_be_none() -> None:
    assert "There are no nights yet." in to_markdown([])
    page = to_html([])
    assert "There are no nights yet." in page
    assert "<article" not in page


def test_the_page_needs_nothing_else() -> None:
    page = to_html([trend("max"), trend("avg", **BAD)])
    assert not re.search(r"\b(src|href)=|url\(|@import|<script", page)
    assert len(page) < 12_000
