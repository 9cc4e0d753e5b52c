"""The command line. Heavy libraries are imported by the commands that need them: --help takes none."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from poolbench import __version__
from poolbench.core import Cell, DataLocation, MissingData, Result, Status, UsageError
from poolbench.options import Command, device_option, say, split_names, with_options
from poolbench.registry import TIMM, Registry, architectures, benchmarks, datasets, heads, pools
from poolbench.runner.plan import PRESETS, Selection, parse_conditions, parse_seeds, plan

if TYPE_CHECKING:
    from poolbench.runner.ledger import Invocation, Ledger
    from poolbench_tracking.mlflow_sink import MlflowSink

OK, FAILED, USAGE, NO_DATA, INTERRUPTED = 0, 1, 2, 3, 130
REGISTRIES: dict[str, Registry[Any]] = {
    "benchmarks": benchmarks,
    "pools": pools,
    "heads": heads,
    "architectures": architectures,
    "datasets": datasets,
}
T = TypeVar("T")


class Suite(click.Group):
    """The commands; a UsageError becomes one line and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.exceptions.NoArgsIsHelpError:
            raise
        except KeyboardInterrupt:
            say("interrupted; what is finished stays, the same command continues")
            ctx.exit(INTERRUPTED)
        except MissingData as error:
            say(f"poolbench: {error}")
            ctx.exit(NO_DATA)
        except UsageError as error:
            say(f"poolbench: {error}")
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "poolbench"
            say(f"poolbench: {error.format_message()} (see '{command} --help')")
        ctx.exit(USAGE)
        return None


@click.group(cls=Suite, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="poolbench")
def main() -> None:
    """What pooling does to image classifiers, measured.

    Exit codes: 0 fine, 1 a cell failed or a metric regressed, 2 wrong usage, 3 data missing, 130 interrupted.
    """


def _command(*more: str) -> str:
    """Return the command line as it was typed, and what to add to it."""
    return shlex.join(["poolbench", *sys.argv[1:], *more])


def _seeds(ctx: click.Context, option: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    return None if value is None else parse_seeds(value)


def _conditions(ctx: click.Context, option: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    return parse_conditions(values)


out_option = click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("poolbench-out"),
    show_default=True,
    help="Work folder: ledger, MLflow store, report.",
)
uri_option = click.option(
    "--tracking-uri",
    envvar="MLFLOW_TRACKING_URI",
    help="MLflow store or server (default: SQLite in the work folder) [env: MLFLOW_TRACKING_URI].",
)
no_mlflow_option = click.option("--no-mlflow", is_flag=True, help="Keep the ledger alone; 'sync' catches up.")
data_options = [
    click.option(
        "--data-dir",
        envvar="POOLBENCH_DATA",
        default="data",
        show_default=True,
        help="Folder of full data sets [env: POOLBENCH_DATA].",
    ),
    click.option("--download", is_flag=True, help="Download data sets that are not there."),
]
selectors = [
    click.option("--preset", default="quick", show_default=True, help=f"One of {', '.join(PRESETS)}."),
    click.option(
        "--pool", "pools", multiple=True, callback=split_names, help="Pools in place of the preset's, or all."
    ),
    click.option(
        "--head", "heads", multiple=True, callback=split_names, help="Heads in place of the preset's, or all."
    ),
    click.option("--arch", "architectures", multiple=True, callback=split_names, help="Only these architectures."),
    click.option(
        "--dataset", "datasets", multiple=True, callback=split_names, help="Data sets in place of the preset's."
    ),
    click.option("--seeds", callback=_seeds, help="Seeds, like 3, 0-4 or 0,2,5-7."),
    click.option("--epochs", type=click.IntRange(min=1), help="Epochs in place of the preset's."),
    click.option(
        "--where", multiple=True, callback=_conditions, help="Only cells with this FIELD=VALUE, like num_pooling=1."
    ),
]


def _selecting(command: Command) -> Command:
    """Gather the selectors of a command into one ``selection`` argument."""

    @with_options(*selectors)
    @wraps(command)
    def wrapped(names: Sequence[str] | str, preset: str, **arguments: Any) -> Any:
        names_of_axes = ("pools", "heads", "architectures", "datasets", "seeds", "epochs", "where")
        axes = {key: arguments.pop(key) for key in names_of_axes}
        wanted = (names,) if isinstance(names, str) else tuple(names)
        return command(selection=Selection(wanted, preset, **axes), **arguments)

    return wrapped


@main.command("list")
@click.argument("kind", required=False, type=click.Choice(list(REGISTRIES)))
def list_command(kind: str | None) -> None:
    """List benchmarks, pools, heads, architectures and data sets."""
    for name in [kind] if kind else REGISTRIES:
        if not kind:
            click.echo(f"{name}:")
        registry = REGISTRIES[name]
        width = max(len(entry) for entry in registry.names())
        for entry in registry.names():
            marks = [fact.replace("_", " ") for fact, value in registry.facts(entry).items() if value is True]
            mark = f" ({', '.join(marks)})" if marks else ""
            click.echo(f"{'' if kind else '  '}{entry:<{width}}  {registry.describe(entry)}{mark}".rstrip())


@main.command("plan")
@click.argument("names", nargs=-1, required=True)
@_selecting
@out_option
def plan_command(selection: Selection, out: Path) -> None:
    """Show the cells that 'run' would execute, and what is known of each."""
    from poolbench.runner.ledger import Ledger

    ledger = Ledger(out)
    cells = plan(selection)
    done = 0
    for cell in cells:
        status = ledger.result(cell).status
        done += status == "finished"
        click.echo(f"{cell.id}  {status:<8}  {cell.label}")
    say(f"{len(cells)} cells, {done} finished, {len(cells) - done} to run")


@main.command("run")
@click.argument("names", nargs=-1, required=True)
@_selecting
@with_options(out_option, device_option, *data_options, uri_option, no_mlflow_option)
@click.option("--retry-failed", is_flag=True, help="Run failed cells again.")
@click.option("--tuned", is_flag=True, help="Train with the winners of 'poolbench tune'.")
@click.option("--jobs", type=click.IntRange(min=1), help="Worker processes (default: one per CPU core or GPU slot).")
@click.option(
    "--slots-per-gpu",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Workers that share a GPU.",
)
@click.option(
    "--replicas",
    type=click.IntRange(min=1),
    help="Seeds trained as one (default: as many as fit on a GPU, 1 on a CPU).",
)
@click.option("--deterministic", is_flag=True, help="Only GPU kernels that give equal bits in every run.")
def run_command(
    selection: Selection,
    out: Path,
    device: str,
    data_dir: str,
    download: bool,
    tracking_uri: str | None,
    no_mlflow: bool,
    retry_failed: bool,
    tuned: bool,
    jobs: int | None,
    slots_per_gpu: int,
    replicas: int | None,
    deterministic: bool,
) -> None:
    """Run benchmarks (names, or all): every cell that is not finished yet, then the report."""
    from poolbench.runner.ledger import Ledger

    cells = plan(selection)
    if tuned:
        from poolbench.tune import tuned as with_winners

        cells = with_winners(out, cells)
    ledger = Ledger(out).create()
    before = {cell.id: ledger.result(cell) for cell in cells}
    todo = [cell for cell in cells if _is_to_run(before[cell.id], retry_failed)]
    say(f"{len(cells)} cells, {len(cells) - len(todo)} done before, {len(todo)} to run")
    interrupted = False
    report = out / "report" / "report.html"
    unfinished = [i for i in ledger.invocations() if i.content["ended"] is None and not i.is_running()]
    if todo or unfinished or not report.exists():
        more = {"replicas": replicas, "deterministic": deterministic}
        settings = _settings(device, data_dir, download, **more) if todo else None
        devices = _devices(settings.device, jobs, slots_per_gpu, len(todo)) if settings else []
        tracking = Tracking(out, tracking_uri, wanted=not no_mlflow)
        if todo:
            interrupted = _execute(todo, ledger, settings, devices, tracking, selection.preset)
        for invocation in unfinished:
            invocation.close("interrupted")
        tracking.sync(ledger)
        _write_report(ledger, tracking)
    results = [ledger.result(cell) for cell in cells]
    _summarise(results, report)
    sys.exit(INTERRUPTED if interrupted else _exit_code(results))


def _is_to_run(result: Result, retry_failed: bool) -> bool:
    """A finished cell stays; so does a failed one, unless asked for or failed for input that may be mended by now."""
    if result.status == "failed":
        return retry_failed or not result.traceback
    return result.status != "finished"


def _settings(device: str, data_dir: str, download: bool, **more: Any) -> Any:
    from poolbench.runner.attempt import Settings
    from poolbench.runner.environment import resolve_device

    return Settings(DataLocation(data_dir, download), resolve_device(device), **more)


def _devices(device: str, jobs: int | None, slots_per_gpu: int, cells: int) -> list[str]:
    from poolbench.runner.workers import slots

    return slots(device, jobs, slots_per_gpu)[:cells]


def _execute(
    cells: Sequence[Cell], ledger: Ledger, settings: Any, devices: Sequence[str], tracking: Tracking, preset: str
) -> bool:
    """Execute cells under one invocation, in this process where one worker would do; return whether interrupted."""
    from dataclasses import replace

    from poolbench.progress import Progress
    from poolbench.runner.execute import execute
    from poolbench.runner.workers import execute_in_workers

    command = _command()
    invocation = ledger.open_invocation(command, preset)
    settings = replace(settings, invocation=invocation.id)
    # A polite kill ends like Ctrl-C: everything closed, nothing lost.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    outcome = "failed"
    progress = Progress(len(cells), partial(tracking.project, ledger, invocation))
    try:
        with progress:
            if len(devices) > 1:
                execute_in_workers(cells, ledger, settings, progress, devices)
            else:
                execute(cells, ledger, settings, progress)
        outcome = "failed" if progress.failed else "finished"
    except KeyboardInterrupt:
        outcome = "interrupted"
        say("interrupted; finished cells are kept, the same command continues")
    finally:
        signal.signal(signal.SIGTERM, previous)
        invocation.close(outcome)
    return outcome == "interrupted"


class Tracking:
    """MLflow while it can be reached; after its first failure, said once, the ledger goes on alone."""

    def __init__(self, out: Path, uri: str | None, wanted: bool = True) -> None:
        self.sink: MlflowSink | None = None
        if wanted:
            from poolbench_tracking.mlflow_sink import MlflowSink, TrackingUnavailable

            try:
                self.sink = MlflowSink(out, uri)
            except TrackingUnavailable as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.sink = None
        say(f"going on without MLflow, 'poolbench sync' catches up later: {error}")

    def attempt(self, action: Callable[[MlflowSink], T], otherwise: T) -> T:
        """Return what the action gives, or ``otherwise`` where MLflow is not (or no longer) there."""
        if self.sink is None:
            return otherwise
        from poolbench_tracking.mlflow_sink import TrackingUnavailable

        try:
            return action(self.sink)
        except TrackingUnavailable as error:
            self._give_up(error)
            return otherwise

    def project(self, ledger: Ledger, invocation: Invocation, result: Result) -> None:
        self.attempt(lambda sink: sink.project(ledger, result, invocation), False)

    def sync(self, ledger: Ledger) -> None:
        self.attempt(lambda sink: sink.sync([ledger]), 0)


def _write_report(ledger: Ledger, tracking: Tracking) -> Path:
    from poolbench_tracking.report import write_report

    unlinked: dict[str, str] = {}
    return write_report(ledger, ledger.folder / "report", tracking.attempt(lambda sink: sink.links(), unlinked))


def _exit_code(results: Sequence[Result]) -> int:
    if any(result.status == "failed" for result in results):
        # Without a traceback it was the input.
        return FAILED if any(result.traceback for result in results) else USAGE
    if any(result.status == "skipped" for result in results):
        return NO_DATA
    return OK if all(result.status == "finished" for result in results) else FAILED


def _summarise(results: Sequence[Result], report: Path) -> None:
    counts = {status: sum(r.status == status for r in results) for status in ("finished", "failed", "skipped")}
    counts["not run"] = len(results) - sum(counts.values())
    say(", ".join(f"{count} {status}" for status, count in counts.items() if count or status == "finished"))
    for result in results:
        if result.status == "failed":
            say(f"failed: {result.cell.label}: {result.reason.splitlines()[0]}")
    missing = {result.cell.dataset: result for result in results if result.status == "skipped"}
    for result in missing.values():
        say(f"skipped, no data: {result.reason}")
    if missing:
        say(f"to fetch it: {_command('--download')}")
    if any(result.traceback for result in results):
        say("tracebacks are in the report; --retry-failed runs failed cells again")
    click.echo(str(report))


@main.command("status")
@out_option
def status_command(out: Path) -> None:
    """Count the cells in a work folder by benchmark and status, and say why some failed."""
    ledger = _existing(out)
    results = ledger.results()
    statuses: tuple[Status, ...] = ("finished", "running", "failed", "skipped", "pending")
    click.echo(f"{'benchmark':<20}" + "".join(f"{status:>10}" for status in statuses))
    for name in dict.fromkeys(result.cell.benchmark for result in results):
        own = [result.status for result in results if result.cell.benchmark == name]
        click.echo(f"{name:<20}" + "".join(f"{own.count(status):>10}" for status in statuses))
    for result in results:
        if result.status in ("failed", "skipped"):
            click.echo(f"{result.status}: {result.cell.label}: {result.reason.splitlines()[0]}")
    if foreign := ledger.foreign():
        say(f"{foreign} cells were written by another version of poolbench and are left out")


@main.command("report")
@out_option
@uri_option
@no_mlflow_option
def report_command(out: Path, tracking_uri: str | None, no_mlflow: bool) -> None:
    """Write the report of a work folder: HTML, Markdown and CSV."""
    ledger = _existing(out)
    click.echo(str(_write_report(ledger, Tracking(out, tracking_uri, wanted=not no_mlflow))))


@main.command("sync")
@out_option
@uri_option
def sync_command(out: Path, tracking_uri: str | None) -> None:
    """Project the ledger into MLflow; what is there already stays as it is."""
    from poolbench.tune import tuning_ledgers
    from poolbench_tracking.mlflow_sink import MlflowSink, TrackingUnavailable

    ledgers = [_existing(out), *tuning_ledgers(out)]
    try:
        written = MlflowSink(out, tracking_uri).sync(ledgers)
    except TrackingUnavailable as error:
        say(f"poolbench: MLflow is out of reach, nothing is lost: {error}")
        sys.exit(FAILED)
    say(f"{written} runs written")


@main.command("tune")
@click.argument("names", metavar="BENCHMARK")
@_selecting
@click.option("--trials", type=click.IntRange(min=1), required=True, help="Trials per comparison group, in all.")
@with_options(out_option, device_option, *data_options, uri_option, no_mlflow_option)
def tune_command(
    selection: Selection,
    trials: int,
    out: Path,
    device: str,
    data_dir: str,
    download: bool,
    tracking_uri: str | None,
    no_mlflow: bool,
) -> None:
    """Tune rate, decay and batch size of each comparison group on validation images.

    A study continues when started again; 'run --tuned' uses the winners.
    """
    from dataclasses import replace

    from poolbench.runner.ledger import Ledger
    from poolbench.tune import groups_of, tune

    groups = groups_of(plan(selection))
    Ledger(out).create()
    settings = _settings(device, data_dir, download)
    tracking = Tracking(out, tracking_uri, wanted=not no_mlflow)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for number, cell in enumerate(groups, start=1):
        say(f"[{number}/{len(groups)}] {cell.label}")
        run_trial, finish = _trial_runner(settings, tracking, selection.preset)
        outcome = "failed"
        try:
            winner = tune(cell, trials, out, run_trial)
            outcome = "finished"
        except KeyboardInterrupt:
            outcome = "interrupted"
            raise
        finally:
            finish(outcome)
        chosen = " ".join(f"{key}={value:.4g}" for key, value in winner.parameters.items())
        click.echo(f"{replace(cell, seed=0).label}: {chosen} -> validation accuracy {winner.accuracy:.4f}")


def _trial_runner(
    settings: Any, tracking: Tracking, preset: str
) -> tuple[Callable[[Cell, Ledger], Result], Callable[[str], None]]:
    """Return (execute one trial into a study's ledger, close the study's invocation)."""
    from dataclasses import replace

    from poolbench.runner.execute import Silent, execute

    opened: list[tuple[Ledger, Invocation]] = []

    def run_trial(cell: Cell, ledger: Ledger) -> Result:
        if not opened:
            opened.append((ledger, ledger.open_invocation(_command(), preset)))
        _, invocation = opened[0]
        began = time.monotonic()
        execute([cell], ledger, replace(settings, invocation=invocation.id), Silent())
        result = ledger.result(cell)
        tracking.project(ledger, invocation, result)
        train = cell.train
        say(
            f"  lr={train.learning_rate:.3g} wd={train.weight_decay:.3g} batch={train.batch_size}: "
            f"{result.metrics.get('accuracy', float('nan')):.4f} {result.status} ({time.monotonic() - began:.1f} s)"
        )
        return result

    def finish(outcome: str) -> None:
        for ledger, invocation in opened:
            invocation.close(outcome)
            tracking.sync(ledger)

    return run_trial, finish


@main.command("regress")
@out_option
@click.option(
    "--baseline", type=click.Path(path_type=Path), required=True, help="Folder with the results.csv to compare with."
)
@click.option("--alpha", type=click.FloatRange(0, 0.5, min_open=True), default=0.01, show_default=True)
def regress_command(out: Path, baseline: Path, alpha: float) -> None:
    """Compare a work folder with a baseline: a t prediction interval per metric, and a practical margin.

    Writes JUnit XML and Markdown to OUT/regress. Exit code 0 fine, 1 regressed, 2 usage, 3 no data.
    """
    from poolbench.analysis.frames import read_results, results_frame
    from poolbench.analysis.gate import compare, exit_code
    from poolbench.files import storage, write_atomically
    from poolbench_tracking.gate_report import to_junit, to_markdown

    current = results_frame(_existing(out).results())
    metrics = {name: benchmarks.get(name)().metrics for name in benchmarks.names()}
    comparisons = compare(read_results(str(baseline / "results.csv")), current, metrics, alpha)
    folder = out / "regress"
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "junit.xml", to_junit(comparisons).encode())
        write_atomically(folder / "summary.md", to_markdown(comparisons).encode())
    click.echo(to_markdown(comparisons), nl=False)
    sys.exit(exit_code(comparisons))


@main.command("shift-map")
@click.option("--checkpoint", type=click.Path(path_type=Path, dir_okay=False), help="State dict of analyze_pooling.")
@click.option("--num-pooling", type=click.IntRange(0, 2), default=1, show_default=True, help="Its pooling layers.")
@click.option("--model", "spec", help="timm:NAME, package.module:NAME or file.py:NAME in place of a checkpoint.")
@click.option("--pretrained", is_flag=True, help="Fetch the weights of a timm model.")
@click.option("--canvas", type=click.IntRange(min=32), help="Side of the black canvas (default: the model's, or 224).")
@click.option("--half-size", type=click.IntRange(min=0), default=6, show_default=True, help="Of the white square.")
@click.option("--class", "target", type=click.IntRange(min=0), help="Class of the map (default: the most frequent).")
@click.option("--exhaustive", is_flag=True, help="One forward pass per position, whatever the network.")
@click.option(
    "--png",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("shift_map.png"),
    show_default=True,
    help="Where the map goes; its numbers lie beside it (.npz).",
)
@device_option
def shift_map_command(
    checkpoint: Path | None,
    num_pooling: int,
    spec: str | None,
    pretrained: bool,
    canvas: int | None,
    half_size: int,
    target: int | None,
    exhaustive: bool,
    png: Path,
    device: str,
) -> None:
    """Draw what a network answers with a white square at every position of a canvas."""
    if (checkpoint is None) == (spec is None):
        raise UsageError("give either --checkpoint FILE or --model timm:NAME, package.module:NAME or file.py:NAME")
    import numpy as np

    from poolbench.plots.maps import map_overview
    from poolbench.plots.style import to_png
    from poolbench.progress import counting
    from poolbench.runner.environment import resolve_device
    from poolbench.shift_map import input_channels, input_size, named_network, published_network, shift_map

    if checkpoint is not None:
        network = published_network(checkpoint, num_pooling)
    else:
        assert spec is not None
        network = named_network(spec, pretrained)
        if spec.startswith(TIMM) and not pretrained:
            say("the weights are random: --pretrained fetches timm's")
    network = network.to(resolve_device(device))
    with counting("positions") as seen:
        network.register_forward_pre_hook(lambda module, inputs: seen(len(inputs[0])))
        found = shift_map(
            network, input_channels(network), canvas or input_size(network), half_size, target, exhaustive
        )
    probability = found.log_odds.sigmoid().numpy()
    arrays = {"probability": probability, "log_odds": found.log_odds.numpy()}
    parts = None
    if found.parts is not None:
        parts = (found.parts.phase.numpy(), found.parts.boundary.numpy(), found.parts.phases.numpy())
        arrays |= dict(zip(("phase", "boundary", "phases"), parts, strict=True))
    else:
        say("the answers repeat nowhere on the canvas: there is a map, but no phase and border part")
    try:
        png.write_bytes(to_png(map_overview(probability, parts, f"P(class {found.target})")))
        np.savez_compressed(png.with_suffix(".npz"), **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise UsageError(f"cannot write '{png}': {error.strerror}; give --png another place") from error
    for name, value in found.numbers().items():
        click.echo(f"{name:<20}{value if isinstance(value, int) else format(value, '.6g')}")
    say(f"map: {png}, numbers: {png.with_suffix('.npz')}")


@main.command("ui")
@out_option
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
def ui_command(out: Path, port: int) -> None:
    """Open the MLflow UI of a work folder on 127.0.0.1."""
    from poolbench_tracking.mlflow_sink import default_uri

    _existing(out)
    if not (out / "mlflow.db").exists():
        raise UsageError(f"'{out}' has no MLflow store yet; run 'poolbench sync --out {out}' first")
    # One worker and no job runner: the store is a local file, and both cost gigabytes.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    arguments = ["server", "--backend-store-uri", default_uri(out), "--host", "127.0.0.1", "--port", str(port)]
    say(f"MLflow UI: http://127.0.0.1:{port} (Ctrl-C ends it)")
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", *arguments, "--workers", "1"])


def _existing(out: Path) -> Ledger:
    from poolbench.runner.ledger import Ledger

    if not (out / "cells").is_dir():
        raise UsageError(f"'{out}' is no work folder; give the --out of a run, or run 'poolbench run all' first")
    return Ledger(out)


if __name__ == "__main__":
    main()
