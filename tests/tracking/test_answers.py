"""What the report says first: answers, which pool to take, rulings, and what is folded."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from poolbench import registry
from poolbench.choice import Choice
from poolbench.core import Result
from poolbench.plots.scene import Scene
from poolbench.runner.ledger import Ledger
from poolbench.task import Benchmark
from poolbench_tracking.report import write_report

Store = Callable[..., Result]
StoreAll = Callable[[Mapping[str, Sequence[float]]], list[Result]]


def reports(ledger: Ledger) -> tuple[str, str]:
    """Write the report; return (HTML, Markdown)."""
    path = write_report(ledger, ledger.folder / "report")
    return path.read_text(), path.with_suffix(".md").read_text()


def test_answers_come_first(
    study: Benchmark, store_all: StoreAll, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(scene: Scene) -> list[str]:
        return [f"{len(scene.groups)} groups <b> were drawn."]

    choices = (Choice("pool", "Accuracy", "max", ("accuracy", "loss")),)
    entry = registry.Entry("study", lambda: replace(study, choices=choices, answers=answers))
    monkeypatch.setitem(registry.benchmarks._entries, "study", entry)
    store_all({"max": [0.80, 0.81, 0.82, 0.80], "avg": [0.50, 0.51, 0.50, 0.52], "blur": [0.45, 0.46, 0.45, 0.47]})
    page, markdown = reports(ledger)
    for text in (page, markdown):
        assert "max is ahead of all others by more than the noise." in text
        assert "avg instead of max: accuracy -0.300" in text
        assert "3 groups &lt;b&gt; were drawn." in text
        assert text.index("avg instead of max") < text.rindex("A study (quick)")
        assert "1 claim was tested: holds: 1" in re.sub("<[^>]*>", "", text)
    # Its table and its picture, before the rulings and the figures.
    assert page.count('<div class="weighing">') == 1
    assert page.index('<div class="weighing">') < page.index('id="claims"')
    assert '<span class="rank">#3</span>' in page


def test_answers_that_fail_cost_themselves(
    study: Benchmark, store_all: StoreAll, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(scene: Scene) -> list[str]:
        raise ZeroDivisionError("no seeds")

    entry = registry.Entry("study", lambda: replace(study, answers=broken))
    monkeypatch.setitem(registry.benchmarks._entries, "study", entry)
    store_all({"max": [0.8, 0.9, 1.0, 0.9], "avg": [0.5, 0.5, 0.5, 0.5]})
    page, markdown = reports(ledger)
    for text in (page, markdown):
        assert "own answers failed: ZeroDivisionError: no seeds" in text.replace("&#39;", "'")
        assert "A study (quick)" in text


def test_claims_that_failed_are_named_first(study: Benchmark, store_all: StoreAll, ledger: Ledger) -> None:
    store_all({"max": [0.50, 0.51, 0.50, 0.52], "avg": [0.80, 0.81, 0.82, 0.80]})
    page, markdown = reports(ledger)
    assert page.index("These did not hold here") < page.index('id="claims"')
    assert "Here: net, drawn, 3 epochs, preset quick" in " ".join(page.split())
    assert "Did not hold here: Max is more accurate" in markdown


def test_figures_after_the_third_and_further_metrics_are_folded(study: Benchmark, store: Store, ledger: Ledger) -> None:
    for pool in ("max", "avg"):
        for seed in range(4):
            store(pool, seed, 0.5 + 0.01 * seed, metrics={"hidden": 0.1 * seed + (pool == "max")})
    page, _ = reports(ledger)
    folded = page[page.index("More figures (2)") :]
    assert page.count("<figure>") == len(study.figures)
    assert folded.count("<figure>") == 2
    assert "not in the tables" in page[page.index("<summary>Further metrics") :]


def test_columns_that_are_equal_in_all_rows_become_a_line(study: Benchmark, store: Store, ledger: Ledger) -> None:
    for pool, accuracy in (("max", 0.8), ("avg", 0.5)):
        for seed in range(4):
            store(pool, seed, accuracy, metrics={"spread": 2.0})
    for text in reports(ledger):
        assert "Equal in all rows: spread / logit ↓ 2.00 ± 0.00." in text.replace("\u00a0", " ")
    assert "| pool | seeds | accuracy ↑ | loss ↓ |" in reports(ledger)[1]


def test_a_choice_needs_metrics_with_a_direction(study: Benchmark) -> None:
    for name in ("absent", "units"):
        with pytest.raises(ValueError, match=f"choice by '{name}', which is no metric with a direction"):
            replace(study, choices=(Choice("pool", "Accuracy", "max", ("accuracy", name)),))
