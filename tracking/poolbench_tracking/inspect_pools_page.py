"""What ``inspect pools`` writes: a PNG per picture, one offline HTML page that holds them all, the numbers as CSV."""

from __future__ import annotations

import time
from io import StringIO
from pathlib import Path

import pandas as pd

from poolbench.files import storage, text_bytes, write_atomically
from poolbench.inspect.pool_figures import PICTURES, number
from poolbench.inspect.pools import OFFSETS, PoolInspection
from poolbench.plots.style import to_png
from poolbench_tracking.own_model_report import data_uri
from poolbench_tracking.report import templates

PAGE, NUMBERS = "index.html", "pools.csv"


def write_pools(found: PoolInspection, source: str, folder: Path) -> Path:
    """Write the pictures, index.html and pools.csv into a folder; return the path of the page.

    ``source`` names the photograph. Raises StorageError if the folder cannot be written.
    """
    table = StringIO()
    numbers(found).to_csv(table, index=False)
    pictures = {picture.name: to_png(picture.draw(found)) for picture in PICTURES}
    content = {
        **{f"{name}.png": png for name, png in pictures.items()},
        NUMBERS: table.getvalue().encode(),
        PAGE: text_bytes(to_html(found, source, pictures)),
    }
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in content.items():
            write_atomically(folder / name, data)
    return folder / PAGE


def numbers(found: PoolInspection) -> pd.DataFrame:
    """Return a row per pool in order of the change; ``least`` and ``most`` are over the windows of the photograph."""
    rows = []
    for one in found.maps:
        row = {"pool": one.pool, "weights": one.weights, "height": one.before.shape[0], "width": one.before.shape[1]}
        for name in ("change", "circular", "halves"):
            spread = getattr(one, name)
            row |= {name: spread.mean, f"{name}_least": spread.least, f"{name}_most": spread.most}
        rows.append({**row, "contrast": one.contrast, "filter": found.chosen.name, "windows": len(OFFSETS)})
    return pd.DataFrame(rows)


def to_html(found: PoolInspection, source: str, pictures: dict[str, bytes]) -> str:
    """Return the page: the pictures {name: PNG} with their captions, and the table of the pools."""
    return (
        templates(autoescape=True)
        .get_template("inspect_pools.html.j2")
        .render(
            found=found,
            source=source,
            pictures=[(picture, data_uri(pictures[picture.name])) for picture in PICTURES],
            number=number,
            windows=len(OFFSETS),
            written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        )
    )
