"""State dicts of strangers: loaded as they are, or refused in one line; no code of theirs runs."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from poolbench.core import UsageError
from poolbench.own_model.model import Request, fill, load_model, read_weights
from poolbench.shift_map import published_network

State = dict[Any, Any]


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    return nn.Sequential(*layers)


class Code:
    """Would leave a file behind when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.marker,)


def quantised(value: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch means to drop them
        return torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)


CHANGES: dict[str, tuple[Callable[[State], object], str]] = {
    "another shape": (lambda s: s.update({"0.bias": torch.zeros(5)}), "has the shape"),
    "a scalar": (lambda s: s.update({"0.bias": torch.tensor(1.0)}), "has the shape"),
    "no values": (lambda s: s.update({"0.bias": torch.zeros(0)}), "has the shape"),
    "missing": (lambda s: s.pop("0.bias"), "is missing"),
    "extra": (lambda s: s.update({"7.bias": torch.zeros(4)}), "is unexpected"),
    "nan": (lambda s: s.update({"0.bias": torch.full((4,), torch.nan)}), "not finite"),
    "infinity": (lambda s: s.update({"1.running_var": torch.full((4,), torch.inf)}), "not finite"),
    "integers": (lambda s: s.update({"0.bias": torch.zeros(4, dtype=torch.int8)}), "of type torch.int8"),
    "a counter in floats": (lambda s: s.update({"1.num_batches_tracked": torch.tensor(1.5)}), "of type torch.float32"),
    "bits": (lambda s: s.update({"0.bias": torch.zeros(4, dtype=torch.bool)}), "of type torch.bool"),
    "complex": (lambda s: s.update({"0.bias": torch.zeros(4, dtype=torch.complex64)}), "has complex values"),
    "quantised": (lambda s: s.update({"0.bias": quantised(s["0.bias"])}), "is quantised"),
    "sparse": (lambda s: s.update({"0.bias": s["0.bias"].to_sparse()}), "is not dense"),
    "meta": (lambda s: s.update({"0.bias": s["0.bias"].to("meta")}), "on the device meta"),
    "expanded": (lambda s: s.update({"0.bias": torch.zeros(1).expand(10**12)}), "more values than are stored"),
    "a number": (lambda s: s.update({"0.bias": 3}), "does not hold a state dict"),
    "a list": (lambda s: s.update({"0.bias": [1.0, 2.0]}), "does not hold a state dict"),
    "a name that is a number": (lambda s: s.update({5: torch.zeros(4)}), "does not hold a state dict"),
    "empty": (lambda s: s.clear(), "does not hold a state dict"),
    "code": (lambda s: s.update({"0.bias": Code(Path("marker"))}), "could run code"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_fit_is_named(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spoil, message = CHANGES[change]
    state: State = OrderedDict(network().state_dict())
    spoil(state)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(UsageError, match=message) as refused:
        fill(network(), read_weights(tmp_path / "w.pt"), "w.pt")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "marker").exists()
    with pytest.raises(UsageError):
        published_network(tmp_path / "w.pt", 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floats_are_converted(dtype: torch.dtype, tmp_path: Path) -> None:
    given_state = {
        name: value.to(dtype) if value.is_floating_point() else value for name, value in network().state_dict().items()
    }
    torch.save(given_state, tmp_path / "w.pt")
    save_file(given_state, tmp_path / "w.safetensors")
    for suffix in ("pt", "safetensors"):
        filled = network()
        nn.init.zeros_(filled[0].weight)  # type: ignore[index,arg-type]
        fill(filled, read_weights(tmp_path / f"w.{suffix}"), "w")
        for name, value in filled.state_dict().items():
            assert torch.equal(value, given_state[name].to(value.dtype))


FILES: dict[str, Callable[[Path], bytes]] = {
    "empty": lambda marker: b"",
    "text": lambda marker: b"weights",
    "a pickle": lambda marker: pickle.dumps(Code(marker)),
    "an old pickle": lambda marker: pickle.dumps(Code(marker), protocol=0),
    "a pickled list": lambda marker: pickle.dumps([1, 2]),
    "a whole network": lambda marker: stored(network()),
    "a list": lambda marker: stored([torch.zeros(2)]),
    "a tensor": lambda marker: stored(torch.zeros(2)),
    "nothing": lambda marker: stored(None),
    "a zip": lambda marker: zipped({"data.pkl": pickle.dumps(Code(marker))}),
    "an archive": lambda marker: zipped({"archive/data.pkl": pickle.dumps(Code(marker)), "archive/version": b"3\n"}),
    "nested": lambda marker: stored({"state_dict": {"model": {"x": 1}}}),
}


def stored(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors"])
@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_state_dict_is_refused_and_runs_nothing(kind: str, suffix: str, tmp_path: Path) -> None:
    path, marker = tmp_path / f"w{suffix}", tmp_path / "marker"
    path.write_bytes(FILES[kind](marker))
    with pytest.raises(UsageError) as refused:
        read_weights(path)
    assert "\n" not in str(refused.value)
    assert not marker.exists()


@pytest.mark.parametrize("count", [0, 1, 100_001])
def test_a_classifier_of_absurd_size_is_not_built(count: int, tmp_path: Path) -> None:
    from torchvision import models

    state = models.squeezenet1_1(num_classes=2).state_dict()
    for name in ("classifier.1.weight", "classifier.1.bias"):
        own = state[name]
        # Bytes for all of its values, which a file of many zeros could be unpacked to.
        state[name] = own[:count] if count <= 2 else torch.zeros(count, *own.shape[1:], dtype=torch.float16)
    torch.save(state, tmp_path / "w.pt")
    request = Request("torchvision:squeezenet1_1", tmp_path / "w.pt", size=64)
    if count == 1:
        assert load_model(request, None, "cpu").outputs == 1
        return
    with pytest.raises(UsageError):
        load_model(request, None, "cpu")


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    save_file(network().state_dict(), tmp_path / "good.safetensors")
    files = {".pt": stored(network().state_dict()), ".safetensors": (tmp_path / "good.safetensors").read_bytes()}

    @given(
        st.sampled_from(sorted(files)),
        st.lists(st.tuples(st.integers(0, 5000), st.binary(max_size=3)), min_size=1, max_size=4),
    )
    def run(suffix: str, edits: list[tuple[int, bytes]]) -> None:
        spoiled = bytearray(files[suffix])
        for place, new in edits:
            spoiled[place % len(spoiled) : place % len(spoiled) + 1] = new
        path = tmp_path / f"w{suffix}"
        path.write_bytes(spoiled)
        with suppress(UsageError):
            fill(network(), read_weights(path), "w")

    run()
