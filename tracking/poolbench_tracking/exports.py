"""What goes into papers: tables for LaTeX, figures as SVG and PDF, the summary as parquet."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path

import pandas as pd

from poolbench.analysis.tables import Entry, Table
from poolbench.files import storage, text_bytes, write_atomically
from poolbench.runner.evidence import Evidence, read_evidence
from poolbench.runner.ledger import Ledger
from poolbench_tracking.sections import Section, sections_of, summary_frame

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$",
    "\u00a0": "~", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip
"""Characters with another meaning in LaTeX, or that its fonts lack."""


def write_exports(ledger: Ledger, folder: Path) -> list[Path]:
    """Write tables.tex, summary.parquet and figures/*.svg and *.pdf into ``folder``; return their paths.

    The tables need the package booktabs. Raises StorageError if the folder cannot be written.
    """
    found = read_evidence(ledger)
    sections = list(sections_of(found))
    files = {
        "tables.tex": text_bytes("\n".join(latex(section, table) for section in sections for table in section.tables)),
        "summary.parquet": _parquet(summary_frame(sections, found.images)),
    }
    for section in sections:
        files |= _figures(section, found)
    with storage(folder):
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomically(folder / name, content)
    return [folder / name for name in files]


def latex(section: Section, table: Table) -> str:
    """Return a table of a section as a LaTeX tabular with the rules of booktabs; the best numbers are bold."""
    equal = f"Equal in all rows: {table.equal}" if table.equal else ""
    caption = ". ".join(filter(None, (section.heading, table.caption, equal)))
    columns = [*(name.replace("_", " ") for name in table.fields), "seeds", *table.metrics]
    lines = [
        r"\begin{table}",
        rf"\caption{{{escaped(caption)}}}",
        rf"\begin{{tabular}}{{{'l' * (len(table.fields) + 1)}{'r' * len(table.metrics)}}}",
        r"\toprule",
        " & ".join(escaped(column) for column in columns) + r" \\",
        r"\midrule",
        *(
            " & ".join([*map(escaped, row.fields), escaped(row.seeds_text), *map(_entry, row.entries)]) + r" \\"
            for row in table.rows
        ),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
        "",
    ]
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Return a text that LaTeX prints as it is."""
    return re.sub("|".join(map(re.escape, SPECIAL)), lambda found: SPECIAL[found[0]], text)


def _entry(entry: Entry) -> str:
    return rf"\textbf{{{escaped(entry.text)}}}" if entry.best else escaped(entry.text)


def _parquet(frame: pd.DataFrame) -> bytes:
    """Return a frame as parquet; columns whose values have several types become text."""
    columns = {}
    for name, column in frame.items():
        known = column.dropna()
        mixed = known.map(type).nunique() > 1 and not known.map(lambda value: type(value) in (int, float)).all()
        columns[name] = column.map(str, na_action="ignore") if mixed else column
    content = BytesIO()
    pd.DataFrame(columns).convert_dtypes().to_parquet(content)
    return content.getvalue()


def _figures(section: Section, found: Evidence) -> dict[str, bytes]:
    """Return {path: content} of the figures of a section; one that fails is left out, the report says why."""
    from poolbench.plots.style import to_pdf, to_svg
    from poolbench_tracking.figures import front_figures, summary_figures

    drawn = summary_figures(section.benchmark, section.results, found.record, lambda name, error: None)
    fronts = {f"front-{n}": figure for n, figure in enumerate(front_figures(section.weighings), start=1) if figure}
    files = {}
    for name, figure in {**drawn, **fronts}.items():
        path = f"figures/{section.anchor}-{name}"
        files[f"{path}.svg"] = to_svg(figure).encode()
        files[f"{path}.pdf"] = to_pdf(figure)
    return files
