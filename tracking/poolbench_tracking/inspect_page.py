"""The inspection of a network as files: one offline HTML page, its pictures as PNG, all numbers as JSON."""

from __future__ import annotations

import json
import time
from pathlib import Path

from poolbench.files import storage, text_bytes, write_atomically
from poolbench.inspect.findings import Inspection
from poolbench.inspect.model_answers import answers, counted, mean_of, number, of_answered, warnings
from poolbench.inspect.saliency import METHODS
from poolbench.own_model.answers import percent, with_interval
from poolbench_tracking.own_model_report import data_uri, plain
from poolbench_tracking.report import templates

PAGE, NUMBERS = "index.html", "inspection.json"


def write_inspection(found: Inspection, folder: Path) -> list[Path]:
    """Write index.html, inspection.json and the PNGs into an existing folder; return their paths, the page first.

    Each file is whole or absent. Raises StorageError if the folder cannot be written.
    """
    content = {
        **{picture.name: picture.png for picture in found.pictures},
        NUMBERS: json.dumps(plain(found), indent=1, allow_nan=False).encode(),
        PAGE: text_bytes(to_html(found)),
    }
    with storage(folder):
        for name, data in content.items():
            write_atomically(folder / name, data)
    return [folder / name for name in reversed(content)]


def to_html(found: Inspection) -> str:
    """Return the page: the answers, then stages, class maps, saliency and invariance."""
    page = templates(autoescape=True).get_template("inspect_model.html.j2")
    return page.render(
        found=found,
        answers=answers(found),
        warnings=warnings(found),
        images=list(dict.fromkeys(picture.image for picture in found.pictures)),
        thumbnails={one.number: one for one in found.thumbnails},
        methods=METHODS,
        mean_of=mean_of,
        number=number,
        counted=counted,
        of_answered=of_answered,
        percent=percent,
        with_interval=with_interval,
        data_uri=data_uri,
        written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    )
