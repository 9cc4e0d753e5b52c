"""Polyphase sampling: the chosen component moves with the image, also where scores tie."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from poolbench.core import Component, UsageError
from poolbench.data.shapes import sample_shapes
from poolbench.pooling import create_pool, polyphase
from poolbench.pooling.padding import PaddingMode
from poolbench.pooling.polyphase import PolyphasePool

NAMES = ["aps", "aps_blur3", "lps", "max_aps", "max_aps_blur3", "max_lps"]
SHIFTS = list(itertools.product(range(12), range(12)))
by_name = pytest.mark.parametrize("name", NAMES)
by_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])


def made(name: str, channels: int, stride: int = 2, **options: Any) -> PolyphasePool:
    torch.manual_seed(0)
    pool = create_pool(name, channels, stride=stride, padding_mode="circular", **options).double().eval()
    assert isinstance(pool, PolyphasePool)
    return pool


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rolled(x: Tensor) -> Tensor:
    """Return all 144 circular shifts of an image (c, 12, 12) as a batch."""
    return torch.stack([torch.roll(x, by, (-2, -1)) for by in SHIFTS])


def all_are_rolls(out: Tensor, tolerance: float) -> bool:
    """Say whether all of the maps (b, c, h, w) are circular shifts of the first."""
    shifts = itertools.product(range(out.shape[-2]), range(out.shape[-1]))
    close = [((torch.roll(out[:1], by, (-2, -1)) - out).abs() <= tolerance).flatten(1).all(1) for by in shifts]
    return bool(torch.stack(close).any(0).all())


def mirrored(stride: int, seed: int = 1) -> Tensor:
    """Mirror-symmetric in rows and columns: components are mirror images of each other with equal norms."""
    x = draw(2, 12, 12, seed=seed)
    x = x + x.flip(-2)
    return x + torch.roll(x.flip(-1), 1 - stride, -1)


def shuffled(stride: int) -> Tensor:
    """All components hold the same integers in different orders: equal norms, different content."""
    numbers = torch.arange(144 // stride**2, dtype=torch.float64) - 7
    orders = [torch.randperm(len(numbers), generator=torch.Generator().manual_seed(i)) for i in range(stride**2)]
    grids = torch.stack([numbers[order].view(12 // stride, 12 // stride) for order in orders])
    return F.pixel_shuffle(grids[None], stride)[0]


def alternating(stride: int) -> Tensor:
    """Repeats with the opposite sign after a few columns: components are equal except for their sign."""
    x = draw(1, 12, 3 if stride % 2 == 0 else 2)
    return torch.cat((x, -x), 2).tile(12 // (2 * x.shape[2]))


def bright(stride: int) -> Tensor:
    """Faint mirror-symmetric content on a bright background."""
    return 1e5 + mirrored(stride)


def drawn_rectangle(stride: int) -> Tensor:
    """A filled rectangle on a dark background, as in the shift experiment."""
    x = torch.full((1, 12, 12), -127.5, dtype=torch.float64)
    x[:, 3:9, 2:8] = 127.5
    return x


def striped(stride: int) -> Tensor:
    """Repeats every 3 rows and 4 columns."""
    return draw(2, 3, 4).tile(1, 4, 3)


def spike(stride: int) -> Tensor:
    """One bright pixel: all components but one are 0."""
    return F.pad(torch.ones(1, 1, 1, dtype=torch.float64), (5, 6, 4, 7))


def pair(stride: int) -> Tensor:
    """Two equal adjacent pixels, on different components."""
    return F.pad(torch.ones(1, 1, 2, dtype=torch.float64), (5, 5, 4, 7))


def flat(stride: int) -> Tensor:
    """Every component is the same."""
    return torch.full((2, 12, 12), 0.3, dtype=torch.float64)


def dark(stride: int) -> Tensor:
    """All zeros, as after dead units."""
    return torch.zeros(2, 12, 12, dtype=torch.float64)


TIES = [mirrored, shuffled, alternating, bright, drawn_rectangle, striped, spike, pair, flat, dark]


@by_dtype
@by_name
@pytest.mark.parametrize("stride", [2, 3, 4])
def test_all_shifts_of_a_random_image(name: str, stride: int, dtype: torch.dtype) -> None:
    pool = made(name, 3, stride).to(dtype)
    for seed in range(5):
        out = pool(rolled(draw(3, 12, 12, seed=seed)).to(dtype))
        assert all_are_rolls(out, 1e-14 if dtype == torch.float64 else 1e-6)


@by_dtype
@by_name
@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("image", TIES)
def test_all_shifts_of_an_image_with_ties(image: Any, name: str, stride: int, dtype: torch.dtype) -> None:
    x = image(stride).to(dtype)
    pool = made(name, x.shape[0], stride).to(dtype)
    scale = float(x.abs().max()) + 1
    assert all_are_rolls(pool(rolled(x)), scale * (1e-14 if dtype == torch.float64 else 1e-6))


@pytest.mark.parametrize("image", [mirrored, shuffled, alternating])
def test_these_ties_are_ties(image: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without fingerprints the lowest index of a tie is chosen, which is not equivariant."""
    x = image(2)
    pool = made("aps", x.shape[0])
    scores = pool.score(pool.components(x[None]))[0].sort(descending=True).values
    assert scores[0] == pytest.approx(float(scores[1]), rel=1e-14)
    monkeypatch.setattr(polyphase, "_fingerprints", lambda x, stride: x.new_ones(len(x), stride**2))
    assert not all_are_rolls(pool(rolled(x)), 1e-9)


def test_ties_are_broken_among_the_largest() -> None:
    pool = made("aps", 2)
    images = torch.stack([mirrored(2, seed) for seed in range(9)])
    scores = pool.score(pool.components(images))
    ordered = scores.sort(descending=True).values
    assert ((ordered[:, 0] - ordered[:, 1]).abs() < 1e-12 * ordered[:, 0]).all()
    assert (ordered[:, 0] > 1.01 * ordered[:, 3]).all()
    torch.testing.assert_close((scores * pool.choose(images)).sum(1), ordered[:, 0])


@pytest.mark.parametrize("image", [mirrored, shuffled, alternating, drawn_rectangle, pair, striped])
def test_ties_under_the_rounding_of_convolutions(image: Any) -> None:
    x = image(2)
    noisy = rolled(x) * (1 + 2e-7 * draw(144, *x.shape, seed=9))
    out = made("aps", x.shape[0])(noisy.float())
    assert all_are_rolls(out, 4e-6 * float(x.abs().max()))


def test_scores_that_all_tie() -> None:
    """With constant scores the content of the image decides."""
    pool = made("lps", 3)
    torch.nn.init.zeros_(pool.get_parameter("conv2.weight"))
    assert all_are_rolls(pool(rolled(draw(3, 12, 12))), 1e-14)


@by_name
@pytest.mark.parametrize("image", [lambda stride: draw(2, 12, 12), mirrored, shuffled, pair])
def test_a_skip_connection_shares_the_phase(name: str, image: Any) -> None:
    x = rolled(image(2))
    channels = x.shape[1]
    weight = draw(4, channels, 3, 3, seed=5)
    main = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), weight).relu()
    pool, skip_pool = made(name, 4), made(name, channels)
    prepared = pool.prepare(main)
    phase = pool.choose(prepared)
    skip = skip_pool.take(skip_pool.prepare(x), phase)
    assert all_are_rolls(torch.cat((pool.take(prepared, phase), skip), 1), 1e-12)
    assert torch.equal(pool.take(prepared, phase), pool(main))


@by_dtype
@by_name
def test_a_network_is_invariant_to_all_shifts(name: str, dtype: torch.dtype) -> None:
    weights = [draw(4, 2, 3, 3, seed=5).to(dtype), draw(4, 4, 3, 3, seed=6).to(dtype)]
    pools = [made(name, 4).to(dtype), made(name, 4).to(dtype)]
    for x in (draw(2, 12, 12), mirrored(2), F.pad(draw(2, 3, 3), (4, 5, 4, 5))):
        features = rolled(x).to(dtype)
        for weight, pool in zip(weights, pools, strict=True):
            features = pool(F.conv2d(F.pad(features, (1, 1, 1, 1), mode="circular"), weight).relu())
        pooled = features.mean(dim=(-2, -1))
        assert float((pooled - pooled[:1]).abs().max()) <= (1e-12 if dtype == torch.float64 else 1e-4)


def test_aps_against_a_double_loop() -> None:
    x = draw(6, 2, 6, 9)
    out = made("aps", 2, stride=3)(x)
    for n in range(6):
        norms = {}
        for i, j in itertools.product(range(3), range(3)):
            grid = [float(x[n, c, y, z]) for c in range(2) for y in range(i, 6, 3) for z in range(j, 9, 3)]
            norms[i, j] = sum(v * v for v in grid) ** 0.5
        i, j = max(norms, key=lambda phase: norms[phase])
        assert torch.equal(out[n], x[n, :, i::3, j::3])


def test_aps_blur3_is_blur_then_aps() -> None:
    x = draw(6, 2, 6, 8)
    blur = create_pool("blur3", 2, stride=1, padding_mode="circular").double()
    assert torch.equal(made("aps_blur3", 2)(x), made("aps", 2)(blur(x)))


@pytest.mark.parametrize(("name", "bare"), [("max_aps", "aps"), ("max_aps_blur3", "aps_blur3"), ("max_lps", "lps")])
@pytest.mark.parametrize("mode", ["circular", "zeros"])
def test_max_pools_are_a_dense_maximum_before_the_bare_pool(name: str, bare: str, mode: PaddingMode) -> None:
    x = draw(6, 2, 6, 8)
    filled = F.pad(x, (0, 1, 0, 1), mode="circular") if mode == "circular" else F.pad(x, (0, 1, 0, 1), value=-1e9)
    dense = filled.unfold(2, 2, 1).unfold(3, 2, 1).amax((-2, -1))
    torch.manual_seed(0)
    pool = create_pool(name, 2, padding_mode=mode).double().eval()
    torch.manual_seed(0)
    expected = create_pool(bare, 2, padding_mode=mode).double().eval()
    assert torch.equal(pool(x), expected(dense))


@by_name
def test_a_follower_filters_as_its_pool_does(name: str) -> None:
    pool, x = made(name, 2), draw(4, 2, 6, 8)
    follower = pool.follower()
    assert not list(follower.parameters())
    assert torch.equal(follower.prepare(x), pool.prepare(x))
    phase = pool.choose(pool.prepare(x))
    assert torch.equal(follower.take(follower.prepare(x), phase), pool(x))


@by_name
def test_choices_are_one_hot_and_taken(name: str) -> None:
    pool, x = made(name, 2, stride=3), draw(8, 2, 6, 9)
    prepared = pool.prepare(x)
    phase = pool.choose(prepared)
    assert phase.dtype == x.dtype
    assert phase.sum(1).tolist() == [1] * 8
    for n, index in enumerate(phase.argmax(1).tolist()):
        assert torch.equal(pool(x)[n], prepared[n, :, index // 3 :: 3, index % 3 :: 3])


def test_norms_are_not_taken_in_half_precision() -> None:
    """Energies that differ by 1e-3 are equal in bfloat16; those above 2^16 overflow float16."""
    x = torch.full((1, 1, 64, 64), 1.0)
    x[..., ::2, 1::2] = 0.0
    x[..., 1, 1] = 1.5
    for dtype, scale in ((torch.bfloat16, 1), (torch.float16, 400)):
        with torch.autocast("cpu", torch.bfloat16):
            assert made("aps", 1).choose((x * scale).to(dtype)).tolist() == [[0, 0, 0, 1]]


def test_lps_scores_are_invariant_to_rolls_and_eval_takes_the_highest() -> None:
    pool, x = made("lps", 3), draw(8, 3, 12, 12)
    scores = pool.score(pool.components(x))
    torch.testing.assert_close(scores, pool.score(pool.components(torch.roll(x, (2, -4), (-2, -1)))))
    assert torch.equal(pool.choose(x).argmax(1), scores.argmax(1))


def test_lps_in_training_draws_by_its_scores() -> None:
    pool, x = made("lps", 2).train(), draw(1, 2, 4, 4)
    probabilities = pool.score(pool.components(x)).softmax(1)[0]
    torch.manual_seed(0)
    shares = pool.choose(x.expand(4000, -1, -1, -1)).mean(0)
    torch.testing.assert_close(shares, probabilities, rtol=0, atol=4 * 0.5 / 4000**0.5)


def test_lps_without_hard_choice_mixes_components() -> None:
    pool, x = made("lps", 2, hard=False, temperature=2.0).train(), draw(8, 2, 4, 4)
    weights = pool.choose(x)
    torch.testing.assert_close(weights.sum(1), torch.ones(8, dtype=torch.float64))
    assert ((weights > 0) & (weights < 1)).all()


def test_lps_gradients_for_one_draw() -> None:
    pool = made("lps", 2, hard=False).train()
    names = [name for name, _ in pool.named_parameters()]

    def apply(x: Tensor, *values: Tensor) -> Tensor:
        torch.manual_seed(3)
        out: Tensor = torch.func.functional_call(pool, dict(zip(names, values, strict=True)), (x,))
        return out

    assert torch.autograd.gradcheck(apply, (draw(1, 2, 4, 4).requires_grad_(), *pool.parameters()))


@by_name
def test_sides_that_the_stride_does_not_divide(name: str) -> None:
    with pytest.raises(UsageError, match=f"pool '{name}' needs a map whose sides its stride 2 divides, got 7x8; use"):
        made(name, 1)(draw(1, 1, 7, 8))


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("name", ["aps", "max_aps", "aps_blur3"])
def test_drawn_objects_with_all_symmetries_keep_their_phase(name: str, size: int) -> None:
    """Squares and circles are equal to their mirror images and to their transposes, so components tie all the time."""
    images, _ = sample_shapes(100, size, torch.Generator().manual_seed(0), "cpu")
    x = images.double() / 255
    pool = create_pool(Component(name), 1, stride=2, padding_mode="circular").eval()
    here = pool(x)
    for dy, dx in ((1, 0), (0, 1), (1, 1), (2, 3)):
        moved = pool(x.roll((dy, dx), (2, 3)))
        rolls = [here.roll((a, b), (2, 3)) for a in (dy // 2, (dy + 1) // 2) for b in (dx // 2, (dx + 1) // 2)]
        is_roll = torch.stack([(roll - moved).abs().amax(dim=(1, 2, 3)) < 1e-12 for roll in rolls]).any(0)
        assert is_roll.all(), (dy, dx, int((~is_roll).sum()))
