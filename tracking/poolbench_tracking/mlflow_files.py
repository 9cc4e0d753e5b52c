"""The files of MLflow runs: figures, tables, and maps as images."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from poolbench.analysis.groups import Group
from poolbench.runner.cell_record import CellRecord
from poolbench.task import Benchmark
from poolbench_tracking.mlflow_store import Store, milliseconds

LARGEST_CSV = 1_000_000  # bytes
MOST_FIGURES = 2
"""Of a group: drawing takes longer than all the rest of a sync. The report and its run have the others."""


def log_files(store: Store, run_id: str, benchmark: Benchmark, group: Group, records: Mapping[str, CellRecord]) -> None:
    """Log the figures, tables and maps of a group; ``records`` are those of its cells by id."""
    with artifacts(store, run_id) as folder:
        _write_figures(folder / "figures", benchmark, group, records)
        _write_tables(folder / "tables", group, records)
    _log_maps(store, run_id, benchmark.maps, group, records)


@contextmanager
def artifacts(store: Store, run_id: str) -> Iterator[Path]:
    """Give a temporary folder; on success, log what it contains as the run's artifacts."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        store.client.log_artifacts(run_id, folder)


def _write_figures(folder: Path, benchmark: Benchmark, group: Group, records: Mapping[str, CellRecord]) -> None:
    """Write the first figures of the first network that has learned, as PNG. The UI draws curves itself.

    If drawing fails, write the traceback instead: the run is logged all the same.
    """
    from poolbench.plots.scene import example
    from poolbench.plots.style import to_png
    from poolbench_tracking.figures import cell_figures

    result = example(group)
    try:
        for name, figure in cell_figures(benchmark, result, records[result.cell.id], MOST_FIGURES).items():
            folder.mkdir(exist_ok=True)  # a local store would show an empty one, a server does not
            (folder / f"{name}.png").write_bytes(to_png(figure))
    except Exception:
        folder.mkdir(exist_ok=True)
        (folder / "failed.txt").write_text(traceback.format_exc())


def _log_maps(store: Store, run_id: str, names: Sequence[str], group: Group, records: Mapping[str, CellRecord]) -> None:
    """Log stored maps as images whose step is the seed: the UI has a slider for it. Cells without one are left out."""
    from poolbench.plots.images import map_image

    for result in group.results:
        for name in names:
            try:
                image = map_image(records[result.cell.id].array(name))
            except (FileNotFoundError, KeyError):
                continue
            store.client.log_image(
                run_id, image, key=name, step=result.cell.seed, timestamp=milliseconds(result.ended), synchronous=True
            )


def _write_tables(folder: Path, group: Group, records: Mapping[str, CellRecord]) -> None:
    """Write each table of the cells, all seeds in one with a column for the seed.

    As CSV, which the UI shows; large ones as Parquet.
    """
    folder.mkdir()
    names = dict.fromkeys(path.stem for r in group.results for path in records[r.cell.id].folder.glob("*.parquet"))
    for name in names:
        parts = []
        for result in group.results:
            try:
                table = records[result.cell.id].table(name)
            except FileNotFoundError:
                continue  # a table of another version
            parts.append(table.assign(seed=result.cell.seed)[["seed", *table.columns]])
        table = pd.concat(parts, ignore_index=True)
        content = table.to_csv(index=False).encode()
        if len(content) <= LARGEST_CSV:
            (folder / f"{name}.csv").write_bytes(content)
        else:
            table.to_parquet(folder / f"{name}.parquet")
