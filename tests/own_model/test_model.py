"""Loading a user's network: where weights come from, what is refused, and the preprocessing that goes with it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from poolbench.core import UsageError
from poolbench.own_model.model import UNTRAINED, ChannelsLast, Request, load_model, read_weights

CODE = """
import torch
from torch import nn


def net():
    torch.manual_seed(1)
    features = nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*features, nn.Linear(4, 3))


class Viewed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.classify = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 64, 3)

    def forward(self, x):
        x = self.conv(x)
        return self.classify(x.view(len(x), -1))


class Returns(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return self.make(x)


def a_dict():
    return Returns(lambda x: {"logits": x.mean(dim=(2, 3))})


def a_map():
    return Returns(lambda x: x)


def one_output():
    return Returns(lambda x: x.mean(dim=(1, 2, 3))[:, None])


def deep():
    return nn.Sequential(nn.Conv2d(3, 3, 3, stride=4), nn.Conv2d(3, 3, 3), nn.Flatten(), nn.Linear(3, 3))


def failing():
    raise OSError("no weights at hand")


def needs(argument):
    return net()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(CODE)
    return tmp_path / "nets.py"


def load(spec: str, classes: int | None = 3, size: int | None = 8, **more: object) -> nn.Module:
    return load_model(Request(spec, size=size, **more), classes, "cpu").network  # type: ignore[arg-type]


def test_pixels_are_normalised_inside_the_network(file: Path) -> None:
    model = load_model(Request(f"{file}:net", size=8, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)), 3, "cpu")
    x = torch.rand(5, 3, 8, 8)
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    own = model.network.get_submodule("network")
    torch.testing.assert_close(model.network(x), own((x - mean) / std))
    assert model.outputs == 3
    assert not model.is_untrained
    raw = load_model(Request(f"{file}:net", size=8, raw=True), 3, "cpu")
    torch.testing.assert_close(raw.network(x), raw.network.get_submodule("network")(x))


def test_channels_last_only_where_the_code_takes_it(file: Path) -> None:
    x = torch.rand(2, 3, 8, 8)
    assert isinstance(load(f"{file}:net").get_submodule("layout"), ChannelsLast)
    viewed = load(f"{file}:Viewed")
    assert isinstance(viewed.get_submodule("layout"), nn.Identity)
    assert viewed(x).shape == (2, 3)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("form", [
    lambda state: state,
    lambda state: {"state_dict": state, "epoch": 3},
    lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
])  # fmt: skip
def test_weights_of_a_file_are_loaded(
    file: Path, suffix: str, form: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> None:
    own = load(f"{file}:net").get_submodule("network").state_dict()
    given = {name: torch.rand(value.shape) for name, value in own.items()}
    path = file.with_name(f"weights{suffix}")
    if suffix == ".pt":
        torch.save(form(given), path)
    else:
        save_file(given, path)
    model = load_model(Request(f"{file}:net", path, size=8), 3, "cpu")
    assert model.weights == str(path)
    for name, value in model.network.get_submodule("network").state_dict().items():
        assert torch.equal(value, given[name])


def test_the_number_of_classes_is_that_of_the_folders_or_of_the_weights(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    path = tmp_path / "weights.pt"
    torch.save(timm.create_model("test_resnet", num_classes=7).state_dict(), path)
    assert load_model(Request("timm:test_resnet", path, size=32), None, "cpu").outputs == 7
    assert load_model(Request("timm:test_resnet", size=32), 5, "cpu").outputs == 5
    with pytest.raises(UsageError, match=r"do not fit the model: 'fc.weight' has the shape \(7, \d+\) instead of \(5,"):
        load_model(Request("timm:test_resnet", path, size=32), 5, "cpu")


@pytest.mark.parametrize("name", ["timm:test_resnet", "torchvision:resnet18"])
def test_no_model_is_built_for_endless_classes(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"a model of 100,001 classes is not built; give 1 to 100,000"):
        load_model(Request(name, num_classes=100_001), None, "cpu")


def test_a_model_of_timm_brings_its_preprocessing_and_is_untrained_without_weights() -> None:
    pytest.importorskip("timm")
    first, second = (load_model(Request("timm:test_resnet"), 4, "cpu") for _ in range(2))
    used = first.preprocessing
    assert (used.size, used.interpolation) == (160, "bilinear")
    assert used.mean == (0.5, 0.5, 0.5)
    assert first.is_untrained
    assert first.weights == UNTRAINED
    x = torch.rand(2, 3, 160, 160)
    assert torch.equal(first.network(x), second.network(x))


def test_pretrained_weights_come_from_the_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import models

    name = "shufflenet_v2_x0_5"
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert load_model(Request(f"torchvision:{name}", size=32), None, "cpu").is_untrained
    (tmp_path / "checkpoints").mkdir()
    url = models.get_model_weights(name).DEFAULT.url
    state = models.get_model(name).state_dict()
    torch.save(state, tmp_path / "checkpoints" / url.rpartition("/")[2])
    model = load_model(Request(f"torchvision:{name}", size=32), None, "cpu")
    assert model.weights.startswith("pretrained, from the local cache: shufflenet")
    assert torch.equal(model.network.get_parameter("network.fc.weight"), state["fc.weight"])
    assert (model.outputs, model.preprocessing.interpolation) == (1000, "bilinear")
    # They decide between other classes than the folders'.
    assert load_model(Request(f"torchvision:{name}", size=32), 5, "cpu").is_untrained


def test_cached_weights_of_timm_are_loaded_without_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    hub = pytest.importorskip("huggingface_hub")
    state = timm.create_model("test_resnet").state_dict()
    save_file(state, tmp_path / "model.safetensors")
    asked = []

    def cached(repository: str, name: str) -> str:
        asked.append(repository)
        return str(tmp_path / name)

    monkeypatch.setattr(hub, "try_to_load_from_cache", cached)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = load_model(Request("timm:test_resnet", size=32), None, "cpu")
    assert asked == ["timm/test_resnet.r160_in1k"]
    assert model.weights == "pretrained, from the local cache: model.safetensors"
    for name, value in model.network.get_submodule("network").state_dict().items():
        assert torch.equal(value, state[name])


class Stranger:
    """What a pickle would build by running code: it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.file), "w")


def test_pickled_objects_are_refused_without_running_their_code(tmp_path: Path) -> None:
    path = tmp_path / "whole.pt"
    for content in (nn.Linear(2, 2), {"weight": torch.zeros(2), "more": Stranger(tmp_path / "ran")}):
        torch.save(content, path)
        with pytest.raises(UsageError, match=r"whole.pt' holds pickled Python objects.*refused; save model.state_dict"):
            read_weights(path)
        assert not (tmp_path / "ran").exists()
    for content in (pickle.dumps({"weight": [1, 2]}), b"no weights at all"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"whole.pt'"):
            read_weights(path)
    (tmp_path / "damaged.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(UsageError, match=r"damaged.safetensors' cannot be read as weights"):
        read_weights(tmp_path / "damaged.safetensors")
    torch.save({"epoch": 3}, path)
    with pytest.raises(UsageError, match="does not hold a state dict"):
        read_weights(path)


def test_weights_that_do_not_fit_are_named(file: Path) -> None:
    path = file.with_name("other.pt")
    torch.save({"0.weight": torch.zeros(4, 3, 3, 3), "1.bias": torch.zeros(2)}, path)
    expected = r"other.pt' do not fit the model: '0.bias' is missing, '4.weight' is missing and 2 more"
    with pytest.raises(UsageError, match=expected):
        load(f"{file}:net", weights=path)
    state = load(f"{file}:net").get_submodule("network").state_dict()
    torch.save({**state, "spare": torch.zeros(1)}, path)
    with pytest.raises(UsageError, match="'spare' is unexpected;"):
        load(f"{file}:net", weights=path)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("a_dict", "returns a dict, not logits"),
        ("a_map", r"returns the shape \(2, 3, 8, 8\) for 2 images, not \(2, classes\)"),
        ("deep", "does not take images of 3x8x8: .*; give another --size"),
        ("failing", "fails when called: no weights at hand"),
        ("needs", "cannot be called without arguments"),
        ("absent", "has no 'absent'"),
    ],
)
def test_what_is_no_classifier_is_refused(file: Path, function: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        load(f"{file}:{function}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("spec", ["no_such_module:net", "torchvision:no_such", "timm:resnet8888", "just_a_name"])
def test_names_that_lead_nowhere_are_refused(spec: str) -> None:
    with pytest.raises(UsageError) as refused:
        load(spec)
    assert "\n" not in str(refused.value)


def test_another_number_of_classes_is_refused(file: Path) -> None:
    with pytest.raises(UsageError, match="has 3 outputs, but the folder has 5 classes"):
        load(f"{file}:net", classes=5)
    with pytest.raises(UsageError, match="has 3 outputs, but --num-classes says 4 classes"):
        load(f"{file}:net", classes=None, num_classes=4)
    # A single logit decides between two classes.
    assert load_model(Request(f"{file}:one_output", size=8), 2, "cpu").outputs == 1
    with pytest.raises(UsageError, match="has 1 outputs, but the folder has 3 classes"):
        load(f"{file}:one_output")
