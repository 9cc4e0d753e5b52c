"""The timings of training: both sides do the same work, and the figures are stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from poolbench.data import Split

SHAPE = (150, 1, 28, 28)


@pytest.fixture
def train(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("train")


def test_the_article_and_the_engine_do_the_same_work(train: ModuleType) -> None:
    data = train.random_dataset(SHAPE, "cpu")
    assert isinstance(data.train, Split)
    start = train.build("fashion_convnet", "avg", data)
    plain, model = deepcopy(start), deepcopy(start)
    loader = DataLoader(train.ArticleImages(data.train), train.ARTICLE.batch_size)
    loss = train.article_epoch(plain, loader, train.ARTICLE.learning_rate)
    (row,) = train.Training(train.OneNetwork(model), data, train.ARTICLE, [0]).run_epoch()
    assert loss == pytest.approx(row["train_loss"], rel=1e-5)
    for first, second, before in zip(plain.parameters(), model.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)
        assert not torch.equal(first, before)
    accuracy = train.evaluate(model, data.train)[1]
    assert train.article_accuracy(plain, loader) == pytest.approx(accuracy, abs=2 / SHAPE[0])


def test_both_is_the_sum_of_its_parts(train: ModuleType) -> None:
    training, accuracy, both = train.bench_epoch(SHAPE, repeats=1)
    assert [time.part for time in (training, accuracy, both)] == ["training", "accuracy pass", "both"]
    assert both.article == training.article + accuracy.article
    assert both.engine == training.engine + accuracy.engine
    assert both.ratio == both.article / both.engine


def test_replicas_are_timed_against_one(train: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = list(train.bench_replicas("cpu", (70, 1, 28, 28), counts=(1, 2)))
    assert [(row.network, row.replicas) for row in rows] == [
        ("fashion_convnet", 1), ("fashion_convnet", 2), ("simple_conv", 1), ("simple_conv", 2),
    ]  # fmt: skip
    assert all(row.ratio > 0 for row in rows)

    def full(models: list[nn.Module]) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(train, "Stack", full)
    assert list(train.bench_replicas("cpu", (70, 1, 28, 28))) == []


def test_throughput_counts_the_work_of_the_network(train: ModuleType) -> None:
    speed = train.bench_throughput("cpu", (8, 3, 32, 32), batch_size=8)
    # Multiply-adds of the convolutions by hand, at the resolution before the pool. The backward pass is twice
    # that, except that nothing needs the gradient of the image.
    stem, stage, first = 9 * 3 * 64 * 1024, 9 * 64 * 64 * 1024, 9 * 64 * 128 * 1024
    shortcut, linear = 64 * 128 * 256, 512 * 10
    forward = stem + 4 * stage + 3 * (first + 3 * stage + shortcut) + linear
    assert speed.tflops * 1e12 / speed.engine == pytest.approx(2 * (3 * forward - stem), rel=1e-9)
    assert speed.share is None
    assert train.bf16_peak("NVIDIA H200") == 989e12
    assert train.bf16_peak("NVIDIA A100-SXM4-80GB") == 312e12
    assert train.bf16_peak("NVIDIA H200 NVL") is None


def test_the_script_prints_a_table_and_stores_it(
    train: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small: Callable[[], Any] = lambda whole=train.bench_epoch: whole(SHAPE, 1)  # noqa: E731
    monkeypatch.setattr(train, "bench_epoch", small)
    train.main(["--device", "cpu", "--json", str(tmp_path / "train.json")])
    out = capsys.readouterr().out
    assert "accuracy pass" in out
    assert "skipped, they need a CUDA device" in out
    stored = json.loads((tmp_path / "train.json").read_text())
    assert [row["part"] for row in stored["epoch"]] == ["training", "accuracy pass", "both"]
    assert stored["epoch"][2]["ratio"] == stored["epoch"][2]["article"] / stored["epoch"][2]["engine"]
    assert (stored["replicas"], stored["resnet18"]) == ([], None)
