"""inspect model: the page and its files for a model and a cell, artifacts in MLflow, and each mistake as one line."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from poolbench.core import Cell
from poolbench.runner.ledger import Ledger

Cli = Callable[..., Result]

NETWORKS = """
import torch
from torch import nn


def net():
    torch.manual_seed(1)
    features = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3, padding=1), nn.ReLU()
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))


def hidden():
    return nn.Sequential(net(), nn.ReLU(), nn.Linear(3, 3))


def flat():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))


def strideless():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def pixels(image):
    import numpy
    return torch.from_numpy(numpy.array(image.resize((20, 20)))).permute(2, 0, 1) / 100 - 1
"""
MODEL = ("inspect", "model", "nets.py:net", "--size", "16", "--out", "out", "--device", "cpu")
IMAGES = ("--image", "data/a/0.png", "--image", "data/<b>/1.png")


class Page(HTMLParser):
    """The text, what a browser would fetch, and the pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.text += f" {' '.join(data.split())}"


@pytest.fixture
def folder(tmp_path: Path, cli: Cli) -> Path:
    """A folder with networks, and with random images in the folders data/{a,<b>,c}."""
    (tmp_path / "nets.py").write_text(NETWORKS)
    generator = np.random.default_rng(0)
    for name in ("a", "<b>", "c"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            pixels = generator.integers(0, 256, (18, 18, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path


def test_a_model_with_data_and_another_pool(folder: Path, cli: Cli) -> None:
    done = cli(*MODEL, *IMAGES, "--data", "data", "--pool", "blur3")
    assert done.exit_code == 0, done.stderr
    told = done.stdout.splitlines()
    assert told[-1] == "out/index.html"
    assert "steps" in done.stderr
    numbers = json.loads((folder / "out" / "inspection.json").read_text())
    assert numbers["images"] == 12
    assert [network["name"] for network in numbers["networks"]] == ["as it is", "blur3"]
    first = numbers["networks"][0]
    assert [(stage["path"], stage["shape"]) for stage in first["stages"]] == [("1", [4, 16, 16]), ("4", [5, 8, 8])]
    assert first["head"] == {"tap": {"path": "5", "call": 0, "side": "input"}, "pool": "avg", "linear": "7"}
    assert first["accuracy"]["n"] == first["answered"]["images"] == 12
    dead = sum(len(stage["units"]["dead"]) for stage in first["stages"])
    assert f"9 units in 2 stages: {dead} never answer" in told[0]
    assert f"accuracy {100 * first['accuracy']['mean']:.1f} %" in told[2]
    assert told[-2].startswith("With pool blur3, weights kept: accuracy")
    # Class maps: those of the decided class, the runner-up and the label, whose means are ordered as the logits.
    for look in first["looks"]:
        roles = {value["name"]: value for value in look["class_maps"]}
        assert look["label"] in roles
        assert roles[look["decision"]]["mean"] >= roles[look["runner_up"]]["mean"]
    assert first["looks"][1]["label"] == "<b>"

    page = Page((folder / "out" / "index.html").read_text())
    assert all(source.startswith("data:") for source in page.sources)
    for sentence in (line for line in told[:-1]):
        assert " ".join(sentence.split()) in page.text
    files = sorted(path.name for path in (folder / "out").glob("*.png"))
    assert len(files) == 2 * (2 + 1 + 2)  # per image: stages, class maps, saliency of two networks
    embedded = {base64.b64decode(source.partition(",")[2]) for source in page.sources}
    assert all((folder / "out" / name).read_bytes() in embedded for name in files)


def test_one_image_says_how_little_it_says(folder: Path, cli: Cli) -> None:
    done = cli(*MODEL, "--image", "data/a/0.png")
    assert done.exit_code == 0, done.stderr
    assert "Numbers of units are measured on 1 image" in done.stderr
    assert "decides the same for" in done.stdout
    numbers = json.loads((folder / "out" / "inspection.json").read_text())
    assert numbers["networks"][0]["accuracy"] is None
    assert numbers["networks"][0]["stages"][0]["invariance"]["other"] is None
    assert numbers["networks"][0]["looks"][0]["label"] is None


def test_equal_runs_give_equal_numbers(folder: Path, cli: Cli) -> None:
    found = []
    for _ in range(2):
        assert cli(*MODEL, *IMAGES[:2]).exit_code == 0
        numbers = json.loads((folder / "out" / "inspection.json").read_text())
        found.append({**numbers, "seconds": 0})
    assert found[0] == found[1]


def test_other_heads_and_transforms(folder: Path, cli: Cli) -> None:
    hidden = ("inspect", "model", "nets.py:hidden", "--size", "16", "--out", "out", *IMAGES[:2])
    done = cli(*hidden, "--transform", "nets.py:pixels")
    assert done.exit_code == 0, done.stderr
    assert "The network has no class maps" in done.stdout
    assert "There are no class maps" in (folder / "out" / "index.html").read_text()


def test_random_weights_are_said_to_be_random(folder: Path, cli: Cli) -> None:
    done = cli("inspect", "model", "timm:test_resnet", "--size", "32", "--out", "out", *IMAGES[:2])
    assert done.exit_code == 0, done.stderr
    assert "warning: The weights are random" in done.stderr
    numbers = json.loads((folder / "out" / "inspection.json").read_text())
    assert all(one["random"] is None for one in numbers["networks"][0]["looks"][0]["saliency"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (MODEL, "give --image FILE"),
        ((*MODEL, "--image", "absent.png"), "there is no image 'absent.png'"),
        ((*MODEL, "--image", "nets.py"), "damaged or not an image"),
        ((*MODEL, *IMAGES, "--data", "absent"), "there is no folder 'absent'"),
        ((*MODEL, *IMAGES, "--pool", "blurr3"), "unknown pool 'blurr3'"),
        ((*MODEL, *IMAGES, "--pool", "dense"), "does not subsample"),
        ((*MODEL, *IMAGES, "--weights", "absent.pt"), "there is no file 'absent.pt'"),
        ((*MODEL, *IMAGES, "--transform", "nets.py:pixels", "--mean", "0"), "leave out --mean and --std"),
        ((*MODEL, *IMAGES, "--device", "cuda:77"), "cuda:77"),
        (("inspect", "model", "nets.py:flat", "--size", "16", "--out", "out", *IMAGES), "makes no feature maps"),
        (
            ("inspect", "model", "nets.py:strideless", "--size", "16", "--out", "out", *IMAGES, "--pool", "blur3"),
            "no strided convolution or pool",
        ),
        (("inspect", "model", "nets.py:absent", "--out", "out", *IMAGES), "has no 'absent'"),
        (("inspect", "model", "abcd", "--out", "out"), "is not a work folder"),
        (("inspect", "model", "abcd", "--out", "out", "--data", "data"), "taken for the id of a cell"),
    ],
)
def test_a_mistake_is_one_line(arguments: tuple[str, ...], message: str, folder: Path, cli: Cli) -> None:
    done = cli(*arguments)
    assert done.exit_code == 2
    last = done.stderr.strip().splitlines()[-1]
    assert message in last
    assert not (folder / "out" / "index.html").exists()


def test_a_folder_that_cannot_be_made_is_one_line(folder: Path, cli: Cli) -> None:
    (folder / "out").write_text("a file")
    done = cli(*MODEL, *IMAGES)
    assert done.exit_code == 2
    assert "cannot write to 'out'" in done.stderr


def test_a_cell_with_its_run_in_mlflow(
    cells: list[Cell], ledger: Ledger, run_cells: Callable[..., object], cli: Cli, tmp_path: Path
) -> None:
    from poolbench_tracking.mlflow_sink import MlflowSink

    run_cells(cells, ledger)
    cell = next(cell for cell in cells if cell.pool.name == "max")
    command = ("inspect", "model", cell.id[:6], "--work", str(ledger.folder), "--out", "seen", "--device", "cpu")
    done = cli(*command)
    assert done.exit_code == 0, done.stderr
    assert "MLflow has no run of this cell" in done.stderr
    assert not (ledger.folder / "mlflow.db").exists()
    numbers = json.loads((tmp_path / "seen" / "inspection.json").read_text())
    assert numbers["images"] == 40
    assert [look["label"] for look in numbers["networks"][0]["looks"]] == ["black", "grey"]
    answers = ledger.record(cell.id).table("answers")
    assert numbers["networks"][0]["accuracy"]["mean"] == pytest.approx(answers["correct"].mean())

    sink = MlflowSink(ledger.folder)
    sink.sync([ledger])
    done = cli(*command, "--image", "7")
    assert done.exit_code == 0, done.stderr
    assert "MLflow" not in done.stderr
    client = sink.store.client
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`poolbench.cell` = '{cell.id}'")
    logged = {file.path for file in client.list_artifacts(run.info.run_id, "inspect")}
    assert logged == {
        f"inspect/{path.name}" for path in (tmp_path / "seen").iterdir() if "test-image-7" in path.name
    } | {
        "inspect/index.html",
        "inspect/inspection.json",
    }

    done = cli(*command, "--image", "7", "--pool", "avg", "--tracking-uri", "http://127.0.0.1:9")
    assert done.exit_code == 0, done.stderr
    assert "With pool avg, weights kept: accuracy" in done.stdout
    assert "no artifacts in MLflow: the server at http://127.0.0.1:9 cannot be reached" in done.stderr


def test_mistakes_about_cells(cells: list[Cell], ledger: Ledger, run_cells: Callable[..., object], cli: Cli) -> None:
    run_cells(cells[:1], ledger)
    ledger.record(cells[1].id).begin(cells[1], {})
    finished = cells[0].id

    def said(spec: str, *more: str) -> str:
        done = cli("inspect", "model", spec, "--work", str(ledger.folder), "--out", "seen", *more)
        assert done.exit_code == 2, done.output
        return done.stderr.strip().splitlines()[-1]

    assert "1 finished cells, like" in said("zzzz")
    assert "the id of a cell is empty" in said("")
    assert f"cell {cells[1].id} is pending, not finished" in said(cells[1].id)
    assert "there is no test image 40; give --image 0 to 39" in said(finished, "--image", "40")
    assert "is the number of a test image for a cell, like 2, got 'cat.png'" in said(finished, "--image", "cat.png")
    assert "does not subsample" in said(finished, "--pool", "dense")
    (ledger.record(finished).folder / "weights.pt").write_bytes(b"torn")
    assert "is damaged (weights.pt: it has 4 bytes instead of" in said(finished)
