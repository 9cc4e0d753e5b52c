"""With polyphase pools that share their phases and circular padding, no roll of the image changes the logits."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from poolbench.core import Component
from poolbench.surgery import replace_pooling
from poolbench.surgery.layers import ChoosingPool, FollowingPool, Phase

Build = Callable[[str], nn.Module]
Spread = Callable[..., float]

NETWORKS = [
    "resnet18",
    "resnet50",
    "resnet18d",
    "skresnet18",
    "regnety_002",
    "mobilenetv3_small_050",
    "efficientnet_b0",
    "tf_efficientnet_b0",
    "densenet121",
    "convnext_atto",
    "torchvision:resnet18",
    "torchvision:mobilenet_v2",
]


@pytest.mark.parametrize("name", NETWORKS)
def test_no_roll_changes_the_logits(build: Build, spread: Spread, name: str) -> None:
    surgery = replace_pooling(build(name), Component("aps"), in_shape=(3, 64, 64), padding_mode="circular")
    assert not surgery.left
    assert spread(surgery.module) <= 1e-10
    # A network that ignores its input would pass, too.
    decimated = replace_pooling(build(name), Component("decimate"), in_shape=(3, 64, 64), padding_mode="circular")
    assert spread(decimated.module, rolls=((0, 0), (1, 1))) > 1e-3


@pytest.mark.parametrize("pool", ["aps_blur3", "max_aps", "max_aps_blur3", "lps", "max_lps"])
@pytest.mark.parametrize("placement", ["after_activation", "before_norm", "before_convolution"])
def test_every_polyphase_pool_in_every_place(build: Build, spread: Spread, pool: str, placement: str) -> None:
    surgery = replace_pooling(
        build("regnetx_002"),
        Component(pool),
        in_shape=(3, 64, 64),
        padding_mode="circular",
        placement=placement,  # type: ignore[arg-type]
    )
    assert spread(surgery.module) <= 1e-10


@pytest.mark.parametrize("name", ["resnetv2_50x1_bit", "tf_efficientnet_b0", "regnety_002"])
def test_circular_padding_reaches_every_layer(build: Build, spread: Spread, name: str) -> None:
    """A roll by the total stride keeps the phase of every pool: what changes then comes from a border."""
    rolls = ((0, 0), (32, 0), (0, 32), (32, 32))
    original = build(name)
    assert spread(original, rolls=rolls) > 1e-4
    surgery = replace_pooling(original, Component("decimate"), in_shape=(3, 64, 64), padding_mode="circular")
    assert not surgery.left
    assert spread(surgery.module, rolls=rolls) <= 1e-10


@pytest.mark.parametrize(
    ("name", "path", "reason"),
    [
        ("vgg11", "pre_logits.fc1", "a 7x7 convolution without padding reads a map of 7x7 place by place"),
        ("torchvision:vgg11", "", "a map of 7x7 becomes a vector place by place"),
    ],
)
def test_a_classifier_that_knows_positions_is_named(build: Build, name: str, path: str, reason: str) -> None:
    surgery = replace_pooling(build(name), Component("aps"), in_shape=(3, 64, 64), padding_mode="circular")
    assert [one.path for one in surgery.left] == [path]
    assert surgery.left[0].reason == f"{reason}: the output depends on positions"
    features, x = surgery.module.get_submodule("features").double(), torch.randn(1, 3, 64, 64).double()
    with torch.no_grad():
        means = features(torch.cat([torch.roll(x, by, (-2, -1)) for by in ((0, 0), (0, 1), (5, 2))])).mean((-2, -1))
    assert float((means - means[:1]).abs().max() / means.abs().max()) <= 1e-10


@pytest.mark.parametrize("name", ["resnet18", "regnety_002", "mobilenetv3_small_050", "densenet121"])
def test_in_float32_fresh_networks_are_as_invariant_as_rounding_allows(name: str) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10).eval()
    surgery = replace_pooling(model, Component("aps"), in_shape=(3, 64, 64), padding_mode="circular")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        logits = surgery.module(torch.cat([torch.roll(x, by, (-2, -1)) for by in ((0, 0), (0, 1), (2, 1), (31, 7))]))
    assert float((logits - logits[:1]).abs().max()) <= 1e-5 * float(logits.abs().max())


class Residual(nn.Module):
    """A stem and a residual block that halves; 16x16 pixels, ten classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.act = nn.ReLU()
        self.conv = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.act1 = nn.SiLU()
        self.shortcut = nn.Conv2d(4, 6, 1, stride=2)
        self.last = nn.Conv2d(6, 10, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        out: Tensor = self.last((self.act1(self.conv(x)) + self.shortcut(x)).relu()).relu()
        return out.mean((-2, -1))


def operated(pool: Component) -> nn.Module:
    return replace_pooling(Residual(), pool, in_shape=(3, 16, 16), padding_mode="circular").module


def images(count: int = 4, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_every_one_of_256_rolls_and_none_without_a_shared_phase(spread: Spread) -> None:
    rolls = [(i, j) for i in range(16) for j in range(16)]
    model = operated(Component("aps")).eval()
    assert spread(model, 16, rolls, images=8) <= 1e-10
    follower = model.get_submodule("shortcut.pool")
    assert isinstance(follower, FollowingPool)
    model.get_submodule("shortcut").pool = follower.pool
    assert spread(model, 16, rolls, images=8) > 1e-3


def test_random_phases_are_shared_in_training() -> None:
    model = operated(Component("lps")).train()
    chosen: list[Tensor] = []
    original = Phase.set
    phases = {id(part.phase) for part in model.modules() if isinstance(part, ChoosingPool | FollowingPool)}
    assert len(phases) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Phase, "set", lambda self, phase: (chosen.append(phase), original(self, phase))[1])
        x = torch.randn(64, 6, 8, 8)
        branch = model.get_submodule("act1.pool")(x)
        shortcut = model.get_submodule("shortcut.pool")(x[:, :4])
    assert len(chosen) == 1
    assert len(chosen[0].argmax(1).unique()) == 4
    assert torch.equal(branch[:, :4], shortcut)
    model(images()).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_follower_never_uses_the_phase_of_an_earlier_pass() -> None:
    model = operated(Component("aps")).eval()
    model(images())
    with pytest.raises(RuntimeError, match="did not run before it in this pass"):
        model.get_submodule("shortcut")(torch.randn(4, 4, 8, 8))


def test_threads_do_not_see_each_others_phases() -> None:
    model = operated(Component("aps")).eval()
    batches = [images(seed=seed) for seed in range(40)]
    with torch.no_grad(), ThreadPoolExecutor(8) as threads:
        expected = [model(batch) for batch in batches]
        found = list(threads.map(model, batches))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_copies_share_phases_of_their_own() -> None:
    model = operated(Component("lps")).eval()
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    loaded = operated(Component("lps")).eval()
    nn.init.zeros_(loaded.get_submodule("act1.pool.pool.conv2").weight)  # type: ignore[arg-type]
    loaded.load_state_dict(model.state_dict())
    for other in (copy.deepcopy(model), torch.load(stream, weights_only=False), loaded):
        phase = other.get_submodule("act1.pool").phase
        assert phase is other.get_submodule("shortcut.pool").phase
        assert phase is not model.get_submodule("act1.pool").phase
        assert torch.equal(other(images()), model(images()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_operated_networks_export() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model, x = operated(Component("aps_blur3")).eval(), images()
    program = torch.export.export(model, (x,))
    assert torch.equal(program.module()(x), model(x))
    onnx = torch.onnx.export(program, dynamo=True, verbose=False)
    assert onnx is not None
    session = onnxruntime.InferenceSession(onnx.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(out, model(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "path", "note"),
    [
        # Its branches are sampled by a filter in the code of timm's BlurPool2d.
        ("resnetblur50", "layer2.0.downsample.0", "its map meets one whose phase is fixed by layer2.0.aa (conv2d)"),
        ("hrnet_w18_small", "transition1.1.0.0", "its map meets one of other strides: no phase fits both"),
    ],
)
def test_a_phase_that_cannot_be_shared_is_noted(build: Build, name: str, path: str, note: str) -> None:
    surgery = replace_pooling(build(name), Component("aps"), in_shape=(3, 64, 64), padding_mode="circular")
    notes = {one.site.path: one.note for one in surgery.replaced}
    assert notes[path].endswith(note)


def test_stacked_replicas_keep_phases_of_their_own() -> None:
    models = [operated(Component("aps")).eval() for _ in range(3)]
    for seed, model in enumerate(models):
        torch.manual_seed(seed)
        for parameter in model.parameters():
            nn.init.normal_(parameter)
    parameters, buffers = torch.func.stack_module_state(models)
    pixels = images()

    def run(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        out: Tensor = torch.func.functional_call(models[0], (parameters, buffers), (pixels,))
        return out

    with torch.no_grad():
        stacked = torch.vmap(run)(parameters, buffers)
        torch.testing.assert_close(stacked, torch.stack([model(pixels) for model in models]))


def test_operated_networks_compile_as_one_graph() -> None:
    model = operated(Component("aps")).eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for seed in (1, 2):
        assert torch.equal(compiled(images(seed=seed)), model(images(seed=seed)))
