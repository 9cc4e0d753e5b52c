"""evaluate: the page, the numbers, the run in MLflow, and each mistake as one line with exit code 2."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import Result
from PIL import Image

from poolbench.own_model import evaluation
from poolbench_tracking import own_model_report

Cli = Callable[..., Result]

NETWORKS = """
import torch
from torch import nn


def net():
    torch.manual_seed(1)
    features = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)
    network = nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()
    with torch.no_grad():
        # Each class as likely on random pixels, after the normalisation in front.
        network[-1].bias -= network(torch.rand(200, 3, 16, 16) * 4.4 - 2).mean(dim=0)
    return network


def wide():
    return nn.Sequential(nn.Conv2d(3, 8, 9), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


def single():
    return nn.Sequential(nn.Conv2d(3, 1, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        return {"logits": self.net(x)}


def pixels(image):
    import numpy
    return torch.from_numpy(numpy.array(image.resize((20, 20)))).permute(2, 0, 1) / 255
"""
EVALUATE = ("evaluate", "nets.py:net", "--data", "data", "--out", "out", "--device", "cpu")


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


class Page(HTMLParser):
    """What a browser would fetch, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.pictures = 0
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.pictures += tag == "img"
        self.sources += [value or "" for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.text += f" {' '.join(data.split())}"


def test_the_answer_comes_first_and_the_files_agree(folder: Path, cli: Cli) -> None:
    done = cli(*EVALUATE, "--size", "16", "--no-mlflow")
    assert done.exit_code == 0, done.stderr
    told = done.stdout.splitlines()
    share = re.match(r"Moving the crop by one pixel changes (\S+) % \[\S+, \S+\] of the decisions", told[0])
    assert share is not None
    assert told[-1] == "out/index.html"
    assert "forward passes" in done.stderr
    assert "s left)" in done.stderr

    numbers = json.loads((folder / "out" / "evaluation.json").read_text())
    table = pd.read_parquet(folder / "out" / "images.parquet")
    assert f"{100 * numbers['steps'][0]['flips']['mean']:.1f}" == share[1]
    assert table["flips"].mean() == pytest.approx(numbers["steps"][0]["flips"]["mean"])
    assert table["correct"].mean() == pytest.approx(numbers["accuracy"]["mean"])
    assert len(table) == numbers["data"]["images"] == 12
    assert numbers["data"]["classes"] == ["<b>", "a", "c"]

    page = Page((folder / "out" / "index.html").read_text())
    assert all(source.startswith(("data:", "#")) for source in page.sources)
    for sentence in told[:-1]:
        assert " ".join(sentence.split()) in page.text
    decided = {strip[look]["decision"] for strip in numbers["strips"] for look in ("before", "after")}
    assert "<b>" in decided
    assert all(name in page.text for name in decided)
    assert page.pictures == 2 * len(numbers["strips"])
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "evaluation.json", "images.parquet", "index.html"
    ]  # fmt: skip


def test_the_run_and_the_model_are_in_mlflow(folder: Path, cli: Cli) -> None:
    mlflow = pytest.importorskip("mlflow")
    for name in ("one", "two"):
        torch.manual_seed(len(name))
        done = cli(*EVALUATE[:5], name, "--size", "16", "--device", "cpu", "--tracking-uri", "sqlite:///store.db")
        assert done.exit_code == 0, done.stderr
        assert "MLflow" not in done.stderr
    client = mlflow.MlflowClient("sqlite:///store.db")
    experiment = client.get_experiment_by_name("own models")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2
    run, numbers = runs[0], json.loads((folder / "two" / "evaluation.json").read_text())
    assert run.info.status == "FINISHED"
    assert run.data.metrics["flips"] == numbers["steps"][0]["flips"]["mean"]
    assert run.data.params["model"] == "nets.py:net"
    assert run.inputs.dataset_inputs[0].dataset.digest == numbers["data"]["digest"]
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        "index.html", "evaluation.json", "images.parquet"
    }  # fmt: skip
    ranked = client.search_logged_models(
        [experiment.experiment_id], order_by=[{"field_name": "metrics.flips", "ascending": True}]
    )
    assert [model.name for model in ranked] == ["nets_py_net"] * 2
    assert {metric.key for metric in ranked[0].metrics} >= {"flips", "accuracy", "low/flips", "cost/latency_ms"}
    assert {metric.dataset_digest for metric in ranked[0].metrics} == {numbers["data"]["digest"]}
    assert ranked[0].status == "READY"


def test_a_store_that_fails_costs_the_run_and_not_the_results(folder: Path, cli: Cli) -> None:
    (folder / "store").write_text("no database")
    done = cli(*EVALUATE, "--size", "16", "--tracking-uri", f"sqlite:///{folder}/store")
    assert done.exit_code == 0
    assert "no run in MLflow: " in done.stderr
    assert (folder / "out" / "index.html").exists()


def test_images_without_labels_and_a_transform(folder: Path, cli: Cli) -> None:
    flat = ("evaluate", "nets.py:net", "--data", "data/a", "--out", "out", "--device", "cpu", "--no-mlflow")
    done = cli(*flat, "--size", "16", "--transform", "nets.py:pixels", "--limit", "3")
    assert done.exit_code == 0, done.stderr
    assert "ccuracy" not in done.stdout
    numbers = json.loads((folder / "out" / "evaluation.json").read_text())
    assert numbers["accuracy"] is None
    assert [row["name"] for row in numbers["compared"]] == ["window", "circular", "zeros", "half_pixel"]
    assert "Resizing by a pixel is not measured" in (folder / "out" / "index.html").read_text()


def test_an_interrupted_evaluation_writes_nothing(folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "evaluate", interrupted)
    done = cli(*EVALUATE, "--size", "16")
    assert done.exit_code == 130
    assert done.stderr.splitlines()[-1] == "interrupted; nothing was written"
    assert not list((folder / "out").iterdir())


def test_a_number_that_is_not_finite_is_null_in_json() -> None:
    assert own_model_report.plain({"a": [float("nan"), 1.5], "b": float("inf")}) == {"a": [None, 1.5], "b": None}


def damaged(folder: Path) -> None:
    (folder / "data" / "c" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n no image")


def emptied(folder: Path) -> None:
    for path in (folder / "data").rglob("*.png"):
        path.unlink()


def pickled(folder: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), folder / "w.pt")


def misfit(folder: Path) -> None:
    torch.save({"other.weight": torch.zeros(2)}, folder / "w.pt")


def fourth_class(folder: Path) -> None:
    (folder / "data" / "d").mkdir()
    Image.new("RGB", (20, 20)).save(folder / "data" / "d" / "0.png")


def single_class(folder: Path) -> None:
    for name in ("a", "<b>"):
        (folder / "data" / name).rename(folder / name)


def blocked(folder: Path) -> None:
    (folder / "out").write_text("a file")


@pytest.mark.parametrize(
    ("prepare", "changes", "message"),
    [
        (damaged, {}, r"'data/c/2.png' is damaged or not an image"),
        (emptied, {}, "'data' holds no images"),
        (pickled, {"--weights": "w.pt"}, "'w.pt' holds pickled Python objects, .*refused"),
        (misfit, {"--weights": "w.pt"}, "'0.weight' is missing, '0.bias' is missing and"),
        (fourth_class, {}, "has 3 outputs, but the folder has 4 classes"),
        (single_class, {"MODEL": "nets.py:single"}, "images of one class only, 'c'; .* give --data 'data/c'"),
        (blocked, {}, "cannot write to 'out': File exists; choose another folder with --out"),
        (None, {"MODEL": "nets.py:Wrapped"}, "returns a dict, not logits"),
        (None, {"MODEL": "no_such.module:net"}, "'no_such.module' cannot be imported"),
        (None, {"MODEL": "nets.py:other"}, "has no 'other'"),
        (None, {"MODEL": "resnet18"}, "a model is timm:NAME, "),
        (None, {"MODEL": "torchvision:resnet"}, "torchvision has no classifier 'resnet'"),
        (None, {"--weights": "absent.pt"}, "there is no file 'absent.pt'"),
        (None, {"--data": "absent"}, "there is no folder 'absent'"),
        (None, {"--size": "4", "MODEL": "nets.py:wide"}, "does not take images of 3x4x4"),
        (None, {"--mean": "a,b"}, "--mean is one number, or three"),
        (None, {"--std": "0"}, "--std is one number above 0"),
        (None, {"--mean": "0.5", "--transform": "nets.py:pixels"}, "leave out --mean and --std"),
        (None, {"--transform": "pixels"}, "a transform is file.py:NAME"),
        (None, {"--limit": "2"}, "--limit 2 is less than an image for each"),
        (None, {"--device": "tpu"}, "unknown device 'tpu'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_files(
    folder: Path, cli: Cli, prepare: Callable[[Path], None] | None, changes: dict[str, str], message: str
) -> None:
    if prepare is not None:
        prepare(folder)
    given = {"--data": "data", "--out": "out", "--device": "cpu", "--size": "16", "MODEL": "nets.py:net"} | changes
    model = given.pop("MODEL")
    done = cli("evaluate", model, *(part for option in given.items() for part in option))
    assert done.exit_code == 2, done.output
    last = done.stderr.splitlines()[-1]
    assert last.startswith("poolbench: ")
    assert re.search(message, last)
    assert not done.stdout
    assert not (folder / "out").is_dir() or not list((folder / "out").iterdir())


ADVISE = ("advise", "nets.py:net", "--data", "data", "--out", "out", "--size", "16", "--device", "cpu")


def test_advice_comes_first_and_the_files_agree(folder: Path, cli: Cli) -> None:
    mlflow = pytest.importorskip("mlflow")
    done = cli(*ADVISE, "--epochs", "1", "--tracking-uri", "sqlite:///advice.db")
    assert done.exit_code == 0, done.stderr
    *told, page = done.stdout.splitlines()
    assert page == "out/advice.html"
    found = json.loads((folder / "out" / "advice.json").read_text())
    assert found["sentences"] == told
    assert found["outcomes"][0]["name"] == "as it is"
    assert found["not_tried"] == {}
    shown = Page((folder / page).read_text())
    assert all(source.startswith(("data:", "#")) for source in shown.sources)
    assert all(one["name"] in shown.text for one in found["outcomes"])
    client = mlflow.MlflowClient("sqlite:///advice.db")
    experiment = client.get_experiment_by_name("own models").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FINISHED"
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"advice.html", "advice.json"}
    models = client.search_logged_models([experiment])
    assert {model.params["remedy"] for model in models} == {one["name"] for one in found["outcomes"]}
    # The same command goes on where it stopped: everything is there.
    again = cli(*ADVISE, "--epochs", "1", "--no-mlflow")
    assert "epoch" not in again.stderr
    assert (
        json.loads((folder / "out" / "advice.json").read_text())["outcomes"][1]["flips"]
        == found["outcomes"][1]["flips"]
    )


def test_a_misspelt_pool_is_one_line_before_any_work(folder: Path, cli: Cli) -> None:
    done = cli(*ADVISE, "--pools", "blurr3")
    assert done.exit_code == 2
    assert "blur3" in done.stderr.splitlines()[-1]
    assert not (folder / "out").exists()
