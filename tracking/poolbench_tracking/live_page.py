"""The live page: one HTML file in which trained networks are evaluated while the reader moves their input."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from poolbench.files import storage, text_bytes, write_atomically
from poolbench.inspect.live_scene import LiveScene
from poolbench_tracking.report import LIVE, templates


def live_page(scenes: Sequence[LiveScene]) -> str:
    """Return the page as HTML; it loads nothing."""
    data = json.dumps({"scenes": [scene.config() for scene in scenes]}, separators=(",", ":"), allow_nan=False)
    # Within a script element, "<" could end it; JSON can spell it otherwise.
    return templates(autoescape=True).get_template("live.html.j2").render(data=Markup(data.replace("<", "\\u003c")))


def write_live(scenes: Sequence[LiveScene], folder: Path) -> Path:
    """Write live.html into ``folder``; return its path. Raises StorageError if the folder cannot be written."""
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / LIVE, text_bytes(live_page(scenes)))
    return folder / LIVE
