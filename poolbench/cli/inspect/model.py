"""inspect model: feature maps, class maps, saliency and invariance of one network on a few images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from poolbench.cli.options import (
    data_dir_option,
    device_option,
    existing,
    gathered,
    interruptible,
    out_folder_option,
    plugin_option,
    say,
    split_components,
    tell,
    uri_option,
)
from poolbench.cli.own_model import ModelChoice, model_options
from poolbench.core import Cell, DataLocation, UsageError

if TYPE_CHECKING:
    from poolbench.inspect.subject import Subject


def _pools(ctx: click.Context, option: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(split_components(text)))


@dataclass(frozen=True)
class Looked:
    """The options that say what the network is shown: images, the images of the numbers, and other pools."""

    images: tuple[str, ...]
    data: Path | None
    limit: int
    pools: tuple[str, ...]


looked_options = gathered(
    "looked",
    Looked,
    click.option(
        "--image",
        "images",
        metavar="FILE|NUMBER",
        multiple=True,
        help="Image to show; of a cell the number of a test image (default: one of each of four classes). Repeatable.",
    ),
    click.option(
        "--data", type=click.Path(path_type=Path), help="Folder of class folders, or of images: more for the numbers."
    ),
    click.option(
        "--limit", type=click.IntRange(min=2), default=1000, show_default=True, help="Most images behind the numbers."
    ),
    click.option(
        "--pool", "pools", metavar="NAME,...", default="", callback=_pools, help="Pools to see the network with, too."
    ),
)


@dataclass(frozen=True)
class Stored:
    """The options that say where the cells and their runs in MLflow are."""

    work: Path
    data_dir: str
    tracking_uri: str | None
    no_mlflow: bool


stored_options = gathered(
    "stored",
    Stored,
    click.option(
        "--work",
        type=click.Path(path_type=Path),
        default=Path("poolbench-out"),
        show_default=True,
        help="Work folder of the cell: the --out of its run.",
    ),
    data_dir_option,
    uri_option,
    click.option("--no-mlflow", is_flag=True, help="Write the files only."),
)


@click.command("model")
@click.argument("spec", metavar="MODEL|CELL")
@plugin_option()
@looked_options
@out_folder_option("Folder for the page and the numbers.")
@model_options
@stored_options
@device_option
def model_command(spec: str, looked: Looked, out: Path, choice: ModelChoice, stored: Stored, device: str) -> None:
    """Draw what a network sees, and measure what its feature maps look like.

    MODEL is timm:NAME, torchvision:NAME, package.module:FUNCTION or file.py:FUNCTION, as for evaluate. CELL is the id
    of a finished cell of a work folder, or the first characters of it. The page shows feature maps stage by stage,
    class maps, saliency maps, and the least and most invariant units.
    """
    from poolbench.cli.progress import counting
    from poolbench.inspect.inspection import inspect_model
    from poolbench.inspect.model_answers import answers, warnings
    from poolbench.runner.environment import resolve_device
    from poolbench_tracking.inspect_page import write_inspection

    device = resolve_device(device)
    cell: Cell | None = None
    with interruptible():
        if ":" in spec:
            subject = _own(spec, looked, choice, out, device)
        else:
            subject, cell = _stored(spec, looked, choice, stored, out, device)
        with counting("steps") as show:
            found = inspect_model(subject, show)
    files = write_inspection(found, out)
    if cell is not None and not stored.no_mlflow:
        _log(cell, files, stored)
    for sentence in warnings(found):
        say(f"warning: {sentence}")
    for sentence in answers(found):
        tell(sentence)
    click.echo(str(files[0]))


def _own(spec: str, looked: Looked, choice: ModelChoice, out: Path, device: str) -> Subject:
    """Return a model of the user with its images; the folder ``out`` is made in between."""
    from poolbench.cli.progress import counting
    from poolbench.engine.process import keep_freed_memory
    from poolbench.inspect.subject import own_subject, read_pictures, with_pools
    from poolbench.own_model.advise import check_pools
    from poolbench.own_model.images import list_images, named_transform, read_images
    from poolbench.own_model.model import load_model
    from poolbench_tracking.own_model_report import make_folder

    if not looked.images:
        raise UsageError("a model needs an image to look at; give --image FILE, once or more")
    keep_freed_memory()
    check_pools(looked.pools)
    request = choice.request(spec)
    transform = None if choice.transform is None else named_transform(choice.transform)
    listing = None if looked.data is None else list_images(looked.data, looked.limit)
    classes = None if listing is None or listing.labels is None else len(listing.classes)
    model = load_model(request, classes, device)
    files = [Path(name) for name in looked.images]
    pictures = read_pictures(files, model, transform)
    say(f"{spec}: weights {model.weights}; {model.description}")
    make_folder(out)
    images = None
    if listing is not None:
        with counting("images read") as show:
            images = read_images(listing, model.preprocessing, transform, show)
    return with_pools(own_subject(model, pictures, files, images), looked.pools)


def _stored(
    spec: str, looked: Looked, choice: ModelChoice, stored: Stored, out: Path, device: str
) -> tuple[Subject, Cell]:
    """Return a finished cell with its test images, and the cell; the folder ``out`` is made in between."""
    from poolbench.engine.process import keep_freed_memory
    from poolbench.inspect.cell_subject import cell_with_pools, load_cell
    from poolbench.runner.trained import find_cell
    from poolbench_tracking.own_model_report import make_folder

    if any(value is not None for value in astuple(choice)) or looked.data is not None:
        raise UsageError(
            f"'{spec}' is taken for the id of a cell, which has its own weights and images; leave out --data, "
            "--weights, --num-classes, --size, --mean, --std and --transform, or give a model as timm:NAME or "
            "file.py:NAME"
        )
    keep_freed_memory()
    ledger = existing(stored.work)
    try:
        cell = find_cell(ledger.results(), spec, ledger).cell
    except UsageError as error:
        raise UsageError(f"{error}, or a model as timm:NAME, torchvision:NAME or file.py:NAME") from None
    location, record = DataLocation(stored.data_dir), ledger.record(cell.id)
    subject = load_cell(cell, record, _numbers(looked.images), looked.limit, location, device)
    say(f"cell {cell.id}: {cell.label}")
    make_folder(out)
    return cell_with_pools(subject, cell, record, looked.pools, location), cell


def _numbers(images: Sequence[str]) -> list[int]:
    for text in images:
        if not text.isdecimal():
            raise UsageError(f"--image is the number of a test image for a cell, like 2, got '{text}'")
    return [int(text) for text in images]


def _log(cell: Cell, files: Sequence[Path], stored: Stored) -> None:
    """Log the files in the cell's run; a store that fails costs the artifacts, not the files."""
    from poolbench_tracking.inspect_runs import log_inspection
    from poolbench_tracking.mlflow_errors import TrackingUnavailable

    try:
        if log_inspection(cell, files, stored.work, stored.tracking_uri) is None:
            say("MLflow has no run of this cell, so it gets no artifacts; 'poolbench sync' writes the runs")
    except TrackingUnavailable as error:
        say(f"no artifacts in MLflow: {error}")
