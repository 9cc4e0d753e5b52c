"""evaluate and advise: what shifts do to a model of the user on images of the user, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import click

from poolbench.cli.deciding import duration
from poolbench.cli.options import (
    device_option,
    gathered,
    interruptible,
    out_folder_option,
    say,
    split_components,
    tell,
    uri_option,
)
from poolbench.core import UsageError

if TYPE_CHECKING:
    from poolbench.own_model.images import Images
    from poolbench.own_model.model import OwnModel, Request


def _channel_values(ctx: click.Context, option: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    """Return the three numbers of "0.5,0.5,0.5"; one number stands for three."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3) or not all(map(isfinite, values)) or (option.name == "std" and min(values) <= 0):
        above = " above 0" if option.name == "std" else ""
        raise UsageError(f"--{option.name} is one number{above}, or three with commas (R,G,B), got '{text}'")
    return values * (3 // len(values))


MOST_JUDGED = 2000


@dataclass(frozen=True)
class ModelChoice:
    """The options that say which network is evaluated and what it gets to see."""

    weights: Path | None
    num_classes: int | None
    size: int | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    transform: str | None

    def request(self, spec: str) -> Request:
        """Return the request for a network; raise UsageError for a transform together with mean or std."""
        from poolbench.own_model.model import Request

        if self.transform is not None and (self.mean or self.std):
            raise UsageError("--transform returns the network's input itself; leave out --mean and --std")
        raw = self.transform is not None
        return Request(spec, self.weights, self.num_classes, self.size, self.mean, self.std, raw)

    def load(self, spec: str, data: Path, limit: int | None, out: Path, device: str) -> tuple[OwnModel, Images]:
        """Return the network and at most ``limit`` images, read with progress; the folder ``out`` is made in between.

        Raises UsageError for whatever does not fit.
        """
        from poolbench.cli.progress import counting
        from poolbench.engine.process import keep_freed_memory
        from poolbench.own_model.images import list_images, named_transform, read_images
        from poolbench.own_model.model import load_model
        from poolbench_tracking.own_model_report import make_folder

        keep_freed_memory()
        request = self.request(spec)
        transform = None if self.transform is None else named_transform(self.transform)
        listing = list_images(data, limit)
        model = load_model(request, None if listing.labels is None else len(listing.classes), device)
        say(f"{spec}: weights {model.weights}; {model.description}")
        make_folder(out)
        with counting("images read") as show:
            return model, read_images(listing, model.preprocessing, transform, show)


model_options = gathered(
    "choice",
    ModelChoice,
    click.option(
        "--weights",
        type=click.Path(path_type=Path),
        help="Weights: .safetensors, or a state dict of torch.save. Pickled objects are refused.",
    ),
    click.option(
        "--num-classes", type=click.IntRange(min=1), help="Outputs (default: the class folders, or the weights)."
    ),
    click.option(
        "--size", type=click.IntRange(4, 4096), help="Side of the network's input in px (default: the model's)."
    ),
    click.option("--mean", callback=_channel_values, help="Mean of the pixels in [0, 1], like 0.485,0.456,0.406."),
    click.option("--std", callback=_channel_values, help="Standard deviation of the pixels, likewise."),
    click.option(
        "--transform",
        metavar="FILE:FUNCTION",
        help="Function from a PIL image to the tensor (3, h, w) before the crop, instead of resizing and normalising.",
    ),
)


def _pool_names(ctx: click.Context, option: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(split_components(text)))


@click.command("evaluate")
@click.argument("spec", metavar="MODEL")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of class folders, or of images.")
@out_folder_option("Folder for the page and the numbers.")
@model_options
@click.option("--limit", type=click.IntRange(min=2), help="At most this many images, balanced over the classes.")
@click.option(
    "--exact",
    type=click.IntRange(min=1),
    help="Images at all positions of the crop (default: 250, fewer where that takes over 20,000 passes).",
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Images per forward pass (default: by size and device).")
@device_option
@uri_option
@click.option("--no-mlflow", is_flag=True, help="Write the files only.")
def evaluate_command(
    spec: str,
    data: Path,
    out: Path,
    choice: ModelChoice,
    limit: int | None,
    exact: int | None,
    batch_size: int | None,
    device: str,
    tracking_uri: str | None,
    no_mlflow: bool,
) -> None:
    """Measure what shifts, scale and rotation do to MODEL on the images in a folder.

    MODEL is timm:NAME, torchvision:NAME, package.module:FUNCTION or file.py:FUNCTION (called without arguments, returns
    a torch module). Models of timm and torchvision use pretrained weights if the local cache has them; nothing is
    downloaded.
    """
    from poolbench.cli.progress import counting
    from poolbench.own_model.answers import answers, warnings
    from poolbench.own_model.evaluation import Options, evaluate
    from poolbench.runner.environment import resolve_device
    from poolbench_tracking.own_model_report import write_evaluation
    from poolbench_tracking.own_model_runs import log_evaluation

    device = resolve_device(device)
    with interruptible():
        model, images = choice.load(spec, data, limit, out, device)
    with interruptible(), counting("forward passes") as show:
        found = evaluate(model, images, device, Options(exact, batch_size), show)
    page = write_evaluation(found, out)
    if not no_mlflow:
        _log(lambda: log_evaluation(found, out, tracking_uri))
    for sentence in warnings(found):
        say(f"warning: {sentence}")
    for sentence in answers(found):
        tell(sentence)
    click.echo(page)


def _log(write: Callable[[], str]) -> None:
    """Write an MLflow run; a store that fails costs the run, not the results."""
    from poolbench_tracking.mlflow_errors import TrackingUnavailable

    try:
        write()
    except TrackingUnavailable as error:
        say(f"no run in MLflow: {error}")


@dataclass(frozen=True)
class Tried:
    """The options that say what is tried, and on how much."""

    pools: tuple[str, ...]
    images: int
    judged: int | None
    epochs: int
    seeds: int
    budget: float | None


tried_options = gathered(
    "tried",
    Tried,
    click.option(
        "--pools",
        default="blur3,aps_blur3",
        show_default=True,
        callback=_pool_names,
        help="Pools to try in place of strides.",
    ),
    click.option(
        "--images", type=click.IntRange(min=2), default=10_000, show_default=True, help="Most images to learn from."
    ),
    click.option(
        "--judged",
        type=click.IntRange(min=1),
        help="Images that judge (default: 2000, or a fifth if fewer).",
    ),
    click.option("--epochs", type=click.IntRange(min=1), default=2, show_default=True, help="Epochs of fine-tuning."),
    click.option("--seeds", type=click.IntRange(min=3), default=3, show_default=True, help="Seeds of fine-tuning."),
    click.option(
        "--budget", metavar="TIME", callback=duration, help="Try nothing that would end later, like 20m or 2h."
    ),
)


@click.command("advise")
@click.argument("spec", metavar="MODEL")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of class folders, or of images.")
@out_folder_option("Folder for the page and the results.")
@model_options
@tried_options
@click.option("--batch-size", type=click.IntRange(min=1), help="Images per forward pass (default: by size and device).")
@device_option
@uri_option
@click.option("--no-mlflow", is_flag=True, help="Write the files only.")
def advise_command(
    spec: str,
    data: Path,
    out: Path,
    choice: ModelChoice,
    tried: Tried,
    batch_size: int | None,
    device: str,
    tracking_uri: str | None,
    no_mlflow: bool,
) -> None:
    """Say what to do about decisions of MODEL that change with one pixel: other pools, training on, or nothing.

    Tries pools in place of strides with the weights kept, with BatchNorm estimated anew and after fine-tuning, and
    remedies at test time, on images that the model has not been trained with. MODEL is as for evaluate. The same
    command goes on where it stopped.
    """
    from poolbench.own_model.advise import advise, check_pools
    from poolbench.own_model.bench import AdviceOptions
    from poolbench.own_model.pace import Clock
    from poolbench.own_model.trials import Trials
    from poolbench.runner.environment import resolve_device
    from poolbench_tracking.advice_report import write_advice
    from poolbench_tracking.own_model_runs import log_advice

    device = resolve_device(device)
    check_pools(tried.pools)
    clock = Clock(tried.budget)
    model, read = choice.load(spec, data, tried.images + (tried.judged or MOST_JUDGED), out, device)
    judging = tried.judged or min(MOST_JUDGED, max(1, len(read) // 5))
    options = AdviceOptions(tried.pools, tried.epochs, tried.seeds, judging, tried.images, batch_size)
    found = advise(model, read, device, options, lambda setting: Trials(out / "remedies", setting), say, clock)
    page = write_advice(found, out)
    if not no_mlflow:
        _log(lambda: log_advice(found, out, tracking_uri))
    for sentence in found.sentences:
        tell(sentence)
    click.echo(page)
