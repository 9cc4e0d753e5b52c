"""Tables for LaTeX, figures as SVG and PDF, and the summary as parquet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import pytest

from poolbench.core import Result
from poolbench.runner.ledger import Ledger
from poolbench.task import Benchmark
from poolbench_tracking.exports import escaped, write_exports
from poolbench_tracking.report import write_report

StoreAll = Callable[[Mapping[str, Sequence[float]]], list[Result]]


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("max_blur3 & 5 %", r"max\_blur3 \& 5 \%"),
        ("a\\b{c}$^~#", r"a\textbackslash{}b\{c\}\$\textasciicircum{}\textasciitilde{}\#"),
        ("0.8 ± 0.1", r"0.8 $\pm$ 0.1"),
        ("accuracy\u00a0↑", r"accuracy~$\uparrow$"),
    ],
)
def test_latex_prints_text_as_it_is(text: str, latex: str) -> None:
    assert escaped(text) == latex


def test_the_best_is_bold_and_every_row_is_complete(study: Benchmark, store_all: StoreAll, ledger: Ledger) -> None:
    store_all({"max_aps": [0.9, 0.91, 0.92, 0.9, 0.91, 0.92], "avg": [0.5, 0.5, 0.51, 0.5, 0.5, 0.51]})
    folder = ledger.folder / "report"
    paths = write_exports(ledger, folder)
    lines = (folder / "tables.tex").read_text().splitlines()
    rows = [line for line in lines if line.endswith(r"\\")]
    assert [line.count(" & ") for line in rows] == [3, 3, 3]
    (best,) = [line for line in rows if line.startswith(r"max\_aps")]
    assert best.count(r"\textbf{0.91") == 1
    assert r"\textbf" not in next(line for line in rows if line.startswith("avg"))
    assert lines.count(r"\toprule") == lines.count(r"\bottomrule") == lines.count(r"\end{table}") == 1
    write_report(ledger, folder)
    stored, text = pd.read_parquet(folder / "summary.parquet"), pd.read_csv(folder / "summary.csv")
    assert list(stored.columns) == list(text.columns)
    assert stored["mean"].tolist() == pytest.approx(text["mean"].tolist())
    assert {path.name for path in paths} >= {"tables.tex", "summary.parquet"}
    for path in paths:
        if path.suffix == ".pdf":
            assert path.read_bytes().startswith(b"%PDF")
            assert path.with_suffix(".svg").read_text().startswith("<svg")
