"""The report: its numbers, its marks, what it says of cells without a result, and that it opens anywhere."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from poolbench import registry
from poolbench.analysis.frames import read_results
from poolbench.claim import Reach
from poolbench.core import Cell, Result, TrainConfig
from poolbench.files import StorageError
from poolbench.runner.ledger import Ledger
from poolbench.task import Benchmark
from poolbench_tracking.links import Links
from poolbench_tracking.protocols import protocol_of
from poolbench_tracking.report import markdown_text, write_report

Store = Callable[..., Result]
StoreAll = Callable[[Mapping[str, Sequence[float]]], list[Result]]
NOTHING_BOLD = "Nothing is bold"


def reports(ledger: Ledger, links: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Write the report; return (HTML, Markdown)."""
    path = write_report(ledger, ledger.folder / "report", Links(links or {}))
    return path.read_text(), path.with_suffix(".md").read_text()


def rows(markdown: str, pool: str) -> list[list[str]]:
    """Return the cells of the table rows that begin with a pool."""
    found = [line for line in markdown.splitlines() if line.startswith(f"| {pool} |")]
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in found]


def test_an_empty_ledger_says_so(ledger: Ledger) -> None:
    page, markdown = reports(ledger)
    assert "There are no results yet" in page
    assert "There are no results yet" in markdown
    assert (ledger.folder / "report" / "summary.csv").exists()


def test_means_and_half_widths(study: Benchmark, store_all: StoreAll, ledger: Ledger) -> None:
    store_all({"max": [0.8, 0.9, 1.0, 0.9], "avg": [0.5, 0.5, 0.5, 0.5]})
    page, markdown = reports(ledger)
    # s = .1 sqrt(2/3) = .0816; four seeds reach 7.668 standard errors: 7.668 * .0816 / 2 = .313.
    assert rows(markdown, "max") == [["max", "4", "**0.900 ± 0.313**", "**0.100 ± 0.313**"]]
    assert "0.900 ± 0.313" in page
    assert "| pool | seeds | accuracy ↑ | loss ↓ |" in markdown
    assert "dataset drawn, architecture net, head avg" in markdown
    # The claim: differences 0.3, 0.4, 0.5, 0.4.
    assert "+0.400 [+0.087, +0.713], n = 4" in page
    assert "**holds**" in markdown


def test_three_seeds_have_means_without_intervals(study: Benchmark, store_all: StoreAll, ledger: Ledger) -> None:
    store_all({"max": [0.8, 0.9, 1.0], "avg": [0.5, 0.5, 0.5]})
    page, markdown = reports(ledger)
    assert rows(markdown, "max") == [["max", "n = 3, no interval", "0.900", "0.100"]]
    for text in (page, markdown):
        assert "+0.400, n = 3: 4 seeds or more give an interval" in text
        assert "1 more seed would decide it" in text
        assert NOTHING_BOLD in text
    assert "**undecided**" in markdown
    assert 'class="number tied"' not in page


def test_a_single_seed_has_no_interval(study: Benchmark, store: Store, ledger: Ledger) -> None:
    store("max", 0, 0.81234)
    page, markdown = reports(ledger)
    assert rows(markdown, "max") == [["max", "n = 1, no interval", "0.812", "0.188"]]
    assert "n = 1, no interval" in page
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)


def test_bold_needs_a_win_over_every_other_group(study: Benchmark, store_all: StoreAll, ledger: Ledger) -> None:
    store_all({"max": [0.90, 0.92, 0.94, 0.92], "avg": [0.80, 0.821, 0.84, 0.82], "blur": [0.70, 0.721, 0.74, 0.72]})
    page, markdown = reports(ledger)
    assert rows(markdown, "max")[0][2].startswith("**0.920")
    assert rows(markdown, "max")[0][3].startswith("**0.080")
    assert not any("**" in cell for pool in ("avg", "blur") for cell in rows(markdown, pool)[0])
    assert page.count('class="number best"') == 2
    assert NOTHING_BOLD not in page


def test_no_bold_inside_the_noise(study: Benchmark, store_all: StoreAll, ledger: Ledger) -> None:
    store_all({"max": [0.90, 0.92, 0.94, 0.92], "avg": [0.91, 0.90, 0.93, 0.92], "blur": [0.2, 0.2, 0.2, 0.2]})
    page, markdown = reports(ledger)
    assert 'class="number best"' not in page
    assert NOTHING_BOLD in page
    assert NOTHING_BOLD in markdown
    # Two share first place in both columns.
    assert page.count('class="number tied"') == 4
    assert rows(markdown, "max")[0][2].endswith("(tie)")
    assert rows(markdown, "avg")[0][2].endswith("(tie)")
    assert "tie" not in rows(markdown, "blur")[0][2]


def test_what_has_not_learned_is_marked_and_takes_no_part(study: Benchmark, store: Store, ledger: Ledger) -> None:
    for seed in range(5):
        store("avg", seed, 0.6 + 0.01 * seed)
        store("blur", seed, 0.5 + 0.011 * seed)
        store("max", seed, 0.9 + 0.01 * seed, learned=seed != 4)
    page, markdown = reports(ledger)
    # Its seeds 0 to 3 have learned: .90, .91, .92 and .93.
    assert rows(markdown, "max")[0][1] == "4 of 5 learned"
    assert "4 of 5 learned" in page
    assert rows(markdown, "max")[0][2].startswith("**0.915")
    assert "**" not in rows(markdown, "avg")[0][2]


def test_integers_stay_integers(study: Benchmark, store: Store, ledger: Ledger) -> None:
    store("max", 0, 0.5)
    store("max", 0, 0.5, model={"width": 16})
    store("max", 0, 0.5, model={})
    reports(ledger)
    summary = pd.read_csv(ledger.folder / "report" / "summary.csv", dtype=str)
    assert set(summary["width"].dropna()) == {"8", "16"}


def test_protocols_are_told_apart(study: Benchmark, store: Store, cell_of: Callable[..., Cell], ledger: Ledger) -> None:
    assert protocol_of(cell_of(), study) == "quick"
    assert protocol_of(cell_of(dataset="another", pool="new"), study) == "quick"
    assert protocol_of(cell_of(train=TrainConfig(epochs=1)), study) == "other settings"
    assert protocol_of(cell_of(version=2), study) == "version 2"
    store("max", 0, 0.9)
    store("max", 0, 0.8, train=TrainConfig(epochs=1))
    _, markdown = reports(ledger)
    assert "## A study (quick)" in markdown
    assert "## A study (other settings)" in markdown
    assert [row[2] for row in rows(markdown, "max")] == ["0.900", "0.800"]


def test_failed_skipped_and_unfinished_cells(study: Benchmark, ledger: Ledger, cell_of: Callable[..., Cell]) -> None:
    cells = [cell_of("max", seed) for seed in range(3)]
    for cell in cells:
        ledger.record(cell.id).begin(cell, {})
    ledger.record(cells[0].id).append("failed", reason="ValueError: no", traceback="Traceback: line 1 < line 2")
    ledger.record(cells[1].id).append("skipped", reason="no data; --download fetches it")
    ledger.record(cells[2].id).append("epoch", epoch=1)
    page, markdown = reports(ledger)
    for text in (page, markdown):
        assert "ValueError: no" in text
        assert "no data; --download fetches it" in text
        assert "No cell of this benchmark is finished" in text
    for label in ("failed", "skipped", "interrupted"):
        assert f"<b>1</b> {label}" in page
    assert "<pre>Traceback: line 1 &lt; line 2</pre>" in page
    assert "interrupted, 1 of 3 epochs done" in page


def test_text_of_others_is_escaped(
    study: Benchmark, store: Store, ledger: Ledger, cell_of: Callable[..., Cell]
) -> None:
    script = "<script>alert(1)</script>"
    cell = cell_of("avg", 5)
    ledger.record(cell.id).begin(cell, {})
    ledger.record(cell.id).append("failed", reason=script, traceback=script)
    results = [store("max", seed, 0.5, facts={"environment": {"python": script}}) for seed in range(2)]
    store("avg", 0, 0.5)
    ledger.open_invocation(f"poolbench run {script} | cat", "quick").close("finished")
    links = {results[0].cell.id: "javascript:alert(1)", results[1].cell.id: script}
    page, markdown = reports(ledger, links)
    # The page's own script, which sorts tables.
    assert page.count("<script") == 1
    assert "<script" not in markdown
    assert "&lt;script&gt;" in page
    assert 'href="javascript' not in page
    assert "<code>javascript:alert(1)</code>" in page
    assert "Max is more accurate than &lt;b&gt;avg&lt;/b&gt;." in page
    assert "Somebody 2000 \\| a journal" in markdown


def test_markdown_text_stays_in_its_cell() -> None:
    assert markdown_text("a | b\n*c* `d` [e](f) <g> & 1_000") == r"a \| b \*c\* \`d\` \[e\](f) &lt;g&gt; &amp; 1_000"


def test_runs_are_linked(study: Benchmark, store: Store, ledger: Ledger) -> None:
    result = store("max", 0, 0.75)
    page, _ = reports(ledger, {result.cell.id: "http://host:5000/#/runs/1"})
    assert f'<a href="http://host:5000/#/runs/1">{result.cell.label}</a>' in page
    assert ">0.750</td>" in page


def test_environments_and_data_are_counted(study: Benchmark, store: Store, ledger: Ledger) -> None:
    for seed in range(3):
        store("max", seed, 0.5, facts={"environment": {"torch": "2.0" if seed else "1.0"}})
    page, markdown = reports(ledger)
    assert "Environment of 1 cell<" in page
    assert "Environment of 2 cells" in page
    assert "2 cells: torch 2.0" in markdown
    assert "several digests" not in page
    other = {"data": {"name": "drawn", "digest": "fedcba9876543210", "source": "elsewhere"}}
    store("max", 3, 0.5, facts=other)
    page, markdown = reports(ledger)
    assert page.count("several digests") == 2
    assert "several digests" in markdown


def test_invocations_are_listed(study: Benchmark, store: Store, ledger: Ledger) -> None:
    store("max", 0, 0.5)
    ledger.open_invocation("poolbench run study", "quick").close("finished")
    page, markdown = reports(ledger)
    assert "<code>poolbench run study</code>" in page
    assert "poolbench run study (quick, finished)" in markdown


def test_tables_as_csv(study: Benchmark, store: Store, ledger: Ledger) -> None:
    for seed, value in enumerate((0.8, 0.9, 1.0, 0.9, 1.0)):
        store("max", seed, value, learned=seed > 0, metrics={"hidden": 7.0})
    folder = write_report(ledger, ledger.folder / "report").parent
    results = read_results(str(folder / "results.csv"))
    assert len(results) == 15
    assert sorted(results[results["metric"] == "accuracy"]["value"]) == [0.8, 0.9, 0.9, 1.0, 1.0]
    summary = pd.read_csv(folder / "summary.csv").set_index("metric")
    assert list(summary.index) == ["accuracy", "loss", "hidden"]
    row = summary.loc["accuracy"]
    assert (row["benchmark"], row["protocol"], row["pool"], row["n"]) == ("study", "quick", "max", 4)
    # .9, 1.0, .9 and 1.0: s / sqrt 4 = .02887, and four seeds reach 7.668 of it: .2214.
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((0.95, 0.7286, 1.1714), abs=1e-4)
    assert row["learned"] == pytest.approx(4 / 5)


def test_cells_that_are_left_out_are_said(study: Benchmark, store: Store, ledger: Ledger) -> None:
    store("max", 0, 0.5, benchmark="retired")
    store("mine", 0, 0.5, facts={"plugins": ["my_<plugin>.py"]})
    page, markdown = reports(ledger)
    for text in (page, markdown):
        assert "There are no results yet" in text
        assert "no plugin is recorded" in text
        assert "my_&lt;plugin&gt;.py" in text
    assert "1 cell of &#39;retired&#39; is left out" in page
    assert "1 cell of 'retired' is left out" in markdown
    assert len(pd.read_csv(ledger.folder / "report" / "results.csv")) == 0


def test_the_page_needs_nothing_else(study: Benchmark, store_all: StoreAll, ledger: Ledger) -> None:
    store_all({"max": [0.5, 0.6], "avg": [0.4, 0.5]})
    page, _ = reports(ledger)
    # Beside the figures, each claim has a picture of its effect.
    assert page.count('<svg class="interval"') == len(study.claims)
    assert page.count("<figure>") == page.count("<svg ") - len(study.claims) == len(study.figures)
    assert not re.search(r"<(link|iframe|img)\b|@import|\bsrc=|fetch\(|href=.https?:", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert "prefers-color-scheme: dark" in page


def test_a_folder_that_cannot_be_written(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_report(ledger, tmp_path / "file" / "report")


def test_importing_the_report_draws_nothing() -> None:
    code = "import sys, poolbench_tracking.report; sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_too_many_groups_are_tabled_and_not_drawn(
    study: Benchmark, store_all: StoreAll, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    from poolbench_tracking import figures

    store_all({"max": [0.9, 0.91, 0.92, 0.91], "avg": [0.8, 0.81, 0.82, 0.81]})
    drawn = write_report(ledger, ledger.folder / "report").read_text()
    monkeypatch.setattr(figures, "MOST_GROUPS", 1)
    tabled = write_report(ledger, ledger.folder / "report").read_text()
    assert drawn.count("<figure>") == len(study.figures)
    assert "<figure>" not in tabled
    # What remains is the picture of the claim's effect.
    assert tabled.count("<svg") == len(study.claims)
    assert "Not drawn: too many configurations" in tabled
    assert "Not drawn" not in drawn


def test_intervals_cover_images_where_a_cell_has_their_values(
    study: Benchmark, store: Store, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accuracies of .75 in every seed, but on four images: the interval is that of the images, at two thirds of 5 %."""
    metrics = (replace(study.metrics[0], per_image="answers.correct"), *study.metrics[1:])
    entry = registry.Entry("study", lambda: replace(study, metrics=metrics))
    monkeypatch.setitem(registry.benchmarks._entries, "study", entry)
    for seed in range(4):
        store("max", seed, 0.75, tables={"answers": pd.DataFrame({"correct": [1, 1, 1, 0]})})
    _, markdown = reports(ledger)
    # s^2 of the images is .25; t(1 - .05 / 3, 3) = 3.7405; 3.7405 * .5 / 2 = .935.
    assert rows(markdown, "max")[0][2] == "0.750 ± 0.935"


def test_claims_out_of_reach_and_without_networks(
    study: Benchmark, store_all: StoreAll, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = study.claims[0]
    claims = (
        replace(base, reach=Reach(presets=("paper",))),
        replace(base, name="no_such_pool", better={"pool": "absent"}),
    )
    entry = registry.Entry("study", lambda: replace(study, claims=claims))
    monkeypatch.setitem(registry.benchmarks._entries, "study", entry)
    store_all({"max": [0.8, 0.9, 1.0, 0.9], "avg": [0.5, 0.5, 0.5, 0.5]})
    for text in reports(ledger):
        assert "not a test of this claim" in text
        assert "+0.400" in text
        assert "+0.713" in text
        assert "t is about training for the preset paper, these networks had 3" in text
        assert "Not judged, for lack of networks to compare: no such pool." in text
