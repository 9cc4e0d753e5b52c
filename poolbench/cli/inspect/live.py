"""inspect live: a page in which the reader moves the input of small trained networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from poolbench.cli.options import data_dir_option, existing, interruptible, out_folder_option, plugin_option, say
from poolbench.core import DataLocation, UsageError


@click.command("live")
@plugin_option()
@click.argument("cells", nargs=-1, metavar="[CELL]...")
@out_folder_option("Folder for live.html.", Path("."))
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    help="Work folder of the cells (default: poolbench-out).",
)
@data_dir_option
def live_command(cells: Sequence[str], out: Path, work: Path | None, data_dir: str) -> None:
    """Write live.html: move or rotate an object by hand, and see maps and answers of several pools.

    CELLs are ids of finished cells, or unique starts of ids. Without any, 15 small networks are trained first.
    """
    from poolbench.cli.progress import counting
    from poolbench.engine.process import prepare_process
    from poolbench.files import storage
    from poolbench.inspect.live import own_scenes
    from poolbench.inspect.live_cells import cell_scenes
    from poolbench_tracking.live_page import write_live

    if work is not None and not cells:
        raise UsageError("--work names the work folder of CELLs; give the ids of some, or leave it out")
    with storage(out):
        # Before the training, so that it is not in vain.
        out.mkdir(parents=True, exist_ok=True)
    if cells:
        scenes = cell_scenes(existing(work or Path("poolbench-out")), cells, DataLocation(data_dir))
    else:
        say("training 15 networks; give CELLs to show networks that are trained already")
        prepare_process("cpu")
        with interruptible(), counting("epochs") as show:
            scenes = own_scenes(show)
    click.echo(str(write_live(scenes, out)))
