"""The whole evaluation on small networks: what is attributed to which stride, subsets, tables, strips, sentences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from poolbench.analysis.statistics import Interval
from poolbench.own_model import evaluation
from poolbench.own_model.answers import answers, points, warnings, with_interval
from poolbench.own_model.evaluation import Options, evaluate
from poolbench.own_model.images import Images, list_images, read_images
from poolbench.own_model.model import OwnModel, Preprocessing
from poolbench.own_model.results import Evaluation
from poolbench.own_model.sites import antialiased, downsamplings, swapped
from poolbench.registry import pools

SIZE = 16


class Aliased(nn.Module):
    """Two classes by the mean of every second column of fine stripes: only the stride of ``sampling`` aliases.

    ``halving`` averages over 2x2 of what is constant by then.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sampling = nn.Conv2d(3, 2, 1, stride=2, bias=False)
        self.halving = nn.AvgPool2d(2)
        with torch.no_grad():
            self.sampling.weight.zero_()
            self.sampling.weight[:, 0] = torch.tensor([1.0, -1.0])[:, None, None]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = 4 * self.halving(self.sampling(x - 0.5)).mean(dim=(2, 3))
        return logits


def own(network: nn.Module, outputs: int) -> OwnModel:
    preprocessing = Preprocessing(SIZE, (0.0,) * 3, (1.0,) * 3, "nearest")
    whole = nn.Sequential()
    whole.add_module("network", network)
    return OwnModel("made.py:network", whole.eval(), "made here", preprocessing, outputs, False)


def write_stripes(folder: Path) -> Path:
    """Write stripes of one pixel, as wide as the larger image, that start bright ("even") or dark ("odd")."""
    for name, first in (("even", 1), ("odd", 0)):
        (folder / name).mkdir(parents=True)
        for number in range(6):
            pixels = np.full((18, 18, 3), 20 + number, dtype=np.uint8)
            pixels[:, 1 - first :: 2] = 220 - number
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def images_in(folder: Path, limit: int | None = None) -> Images:
    preprocessing = Preprocessing(SIZE, (0.0,) * 3, (1.0,) * 3, "nearest")
    return read_images(list_images(folder, limit), preprocessing, None, lambda done, total: None)


def run(network: nn.Module, outputs: int, images: Images, **options: int) -> Evaluation:
    return evaluate(own(network, outputs), images, "cpu", Options(**options), lambda done, total: None)


@pytest.fixture(scope="module")
def aliased(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    return run(Aliased(), 2, images_in(write_stripes(tmp_path_factory.mktemp("stripes") / "data")))


def test_the_stride_that_aliases_is_found(aliased: Evaluation) -> None:
    # Six of the eight steps move to a neighbouring column.
    assert aliased.steps[0].flips.mean == 0.75
    assert aliased.steps[0].flipped.mean == 1
    assert [site.path for site in aliased.sites] == ["sampling", "halving"]
    sampling, halving = aliased.sites
    assert (sampling.kind, sampling.stride, sampling.size_in, sampling.size_out) == ("strided convolution", 2, 16, 8)
    assert sampling.flips_before == halving.flips_before == halving.flips_after == 0.75
    assert sampling.flips_after < 0.1
    assert aliased.causes == [sampling]
    # A constant map changes its sign from step to step; blurred, or averaged, it is the same before the next stride.
    assert sampling.l2 > 1
    assert any(
        "The stride with the largest effect is sampling (strided convolution, 16 to 8 px)" in s
        for s in answers(aliased)
    )


def test_accuracy_is_measured_beside_stability(aliased: Evaluation) -> None:
    assert aliased.accuracy is not None
    assert aliased.accuracy.mean in (0, 1)
    assert aliased.steps[0].worst is not None
    assert aliased.steps[0].worst.mean == 0
    assert aliased.sites[1].accuracy_change is not None
    assert aliased.sites[1].accuracy_change.mean == 0
    assert aliased.calibration is not None
    assert aliased.calibration.overconfidence.mean == pytest.approx(
        float(aliased.images["probability"].mean()) - aliased.accuracy.mean
    )


def test_the_table_has_a_row_per_image(aliased: Evaluation) -> None:
    table = aliased.images
    assert table["path"].tolist() == [f"{name}/{number}.png" for name in ("even", "odd") for number in range(6)]
    assert table["label"].tolist() == ["even"] * 6 + ["odd"] * 6
    assert (table["flips"] == 0.75).all()
    assert (table["decision right"] != table["decision"]).all()
    assert (table["decision up"] == table["decision"]).all()
    assert (table["exact consistency"].dropna() < 1).all()
    assert {"flips circular", "flips zeros", "flips half_pixel", "flips scale"} <= set(table)


def test_strips_show_the_two_crops(aliased: Evaluation) -> None:
    assert len(aliased.strips) == 10
    strip = aliased.strips[0]
    assert strip.before.decision != strip.after.decision
    before, after = (np.asarray(Image.open(BytesIO(look.png))) for look in (strip.before, strip.after))
    assert before.shape == (SIZE, SIZE, 3)
    assert "right" in strip.step or "left" in strip.step
    # A column further, bright and dark stripes have changed places.
    assert np.array_equal(before[0] > 128, after[0] < 128)


def test_images_without_labels_have_no_accuracy(tmp_path: Path, drawn: Callable[..., Path]) -> None:
    found = run(Aliased(), 2, images_in(drawn(tmp_path, 6, (), 18)))
    assert found.accuracy is found.calibration is found.steps[0].worst is None
    assert found.exact.mean_accuracy is None
    assert found.sites[0].accuracy_change is None
    assert found.rotation.table["accuracy"].isna().all()
    assert "label" not in found.images
    assert found.images["decision"].str.match(r"class [01]$").all()
    assert not any("ccuracy" in sentence for sentence in (*answers(found), *warnings(found)))


def test_equal_evaluations_are_equal_and_progress_adds_up(tmp_path: Path, drawn: Callable[..., Path]) -> None:
    images, shown = images_in(drawn(tmp_path, 5, side=18)), []
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    first = evaluate(own(network, 3), images, "cpu", Options(), lambda done, total: shown.append((done, total)))
    assert first.images.equals(run(network, 3, images).images)
    # Sums over other batches are added in another order, which may change the last bits of a logit.
    smaller = run(network, 3, images, batch=2)
    assert (smaller.images["decision"] == first.images["decision"]).mean() > 0.9
    totals = {total for _, total in shown}
    assert len(totals) == 1
    assert shown[-1] == (max(totals), max(totals))


def test_the_exact_measures_take_a_balanced_subset(
    tmp_path: Path, drawn: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = images_in(drawn(tmp_path, 5, side=18))
    found = run(Aliased(), 2, images, exact=6)
    measured = found.images.dropna(subset=["exact consistency"])
    assert measured["label"].value_counts().tolist() == [2, 2, 2]
    monkeypatch.setattr(evaluation, "EXACT_PASSES", 4 * 9)
    assert run(Aliased(), 2, images).exact.consistency.n == 4
    assert run(Aliased(), 2, images, exact=7).exact.consistency.n == 7


def test_a_network_that_always_decides_alike_is_called_constant(tmp_path: Path, drawn: Callable[..., Path]) -> None:
    network = Aliased()
    with torch.no_grad():
        network.sampling.weight.zero_()
    found = run(network, 2, images_in(drawn(tmp_path, 5, ("a", "b"), 18)))
    assert found.steps[0].flips.mean == 0
    assert found.steps[0].flips.high > 0
    assert not found.causes
    assert "no stride is to blame" in answers(found)[-1]
    told = " ".join(warnings(found))
    assert "100.0 % of the images get the same decision" in told
    assert "cannot be told from chance (50.0 %)" in told
    assert not found.strips


def test_each_downsampling_can_be_anti_aliased_alone() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 2, stride=2), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, stride=3))
    sites = downsamplings(network, (3, 24, 24))
    assert [(site.path, site.stride, site.shape_in[-1], site.shape_out[-1]) for site in sites] == [
        ("0", 2, 24, 12), ("1", 2, 12, 6), ("2", 3, 6, 2)
    ]  # fmt: skip
    # A max pool whose windows do not overlap keeps its maximum.
    done = [swapped(network, pools.resolve("blur3"), (3, 24, 24), [site.path])[1][0] for site in sites]
    assert [line.split(" at ")[0] for line in done] == ["0: blur3", "1: max_blur3", "2: blur3"]
    x = torch.rand(2, 3, 24, 24)
    for site in sites:
        changed = antialiased(network, site, (3, 24, 24))
        assert changed(x).shape == network(x).shape
        assert not torch.equal(changed(x), network(x))
        own_weights = {name: value for name, value in network.state_dict().items() if not name.startswith(site.path)}
        kept = changed.state_dict()
        assert all(torch.equal(kept[name], value) for name, value in own_weights.items())


def test_a_downsampling_that_cannot_be_replaced_says_why(tmp_path: Path, drawn: Callable[..., Path]) -> None:
    class Looking(Aliased):
        """A network whose code reads the stride of its convolution."""

        def forward(self, x: Tensor) -> Tensor:
            if self.sampling.stride != (2, 2):
                raise RuntimeError("another stride than (2, 2)")
            return super().forward(x)

    found = run(Looking(), 2, images_in(drawn(tmp_path, 5, ("a", "b"), 18)))
    sampling, halving = found.sites
    assert "stride" in sampling.refused
    assert sampling.removed is None
    assert halving.removed is not None
    assert not halving.refused


def test_numbers_as_text() -> None:
    assert with_interval(Interval(0.0321, 0.021, 0.0449, 9)) == "3.2 % [2.1, 4.5]"
    assert with_interval(Interval(0.0321, 0.021, 0.0449, 9), 2) == "3.21 % [2.10, 4.49]"
    assert points(Interval(-0.0321, -0.05, 0.001, 9)) == "-3.2 points [-5.0, +0.1]"
    assert points(-Interval(0.0, 0.0, 0.02, 9)) == "+0.0 points [-2.0, +0.0]"


def test_other_strides_with_an_effect_are_named(aliased: Evaluation) -> None:
    halving = replace(aliased.sites[1], removed=Interval(0.02, 0.01, 0.03, 12))
    told = answers(replace(aliased, sites=[halving, aliased.sites[0]]))[-1]
    assert told.startswith("The stride with the largest effect is sampling")
    assert told.endswith("Also with an effect beyond its interval: halving (-2.0 points [-3.0, -1.0]).")
    told = answers(replace(aliased, sites=[replace(halving, removed=Interval(0.02, -0.01, 0.05, 12))]))[-1]
    assert "No single stride stands out: 1 downsamplings" in told
    assert told.endswith("The largest effect on the changed decisions, of halving, is -2.0 points [-5.0, +1.0].")
