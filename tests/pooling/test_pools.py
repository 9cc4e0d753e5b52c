"""The contract of every registered local pool; capabilities are read from the attributes of its class."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.core import Component, UsageError
from poolbench.declared import Entry
from poolbench.engine.build import initialise
from poolbench.pooling import Head, Pool, create_head, create_pool, list_pools, pool_class
from poolbench.pooling.padding import PADDING_MODES, PaddingMode
from poolbench.registry import pools

by_name = pytest.mark.parametrize("name", list_pools())
by_mode = pytest.mark.parametrize("mode", PADDING_MODES)


def made(name: str, channels: int = 3, stride: int = 2, padding_mode: PaddingMode = "zeros") -> Pool:
    torch.manual_seed(0)
    return create_pool(name, channels, stride=stride, padding_mode=padding_mode).double().eval()


def images(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def strides(name: str) -> list[int]:
    return [2, 4] if pool_class(name).needs_power_of_two_stride else [2, 3]


def takes(name: str, size: tuple[int, int], stride: int) -> bool:
    return not (pool_class(name).needs_divisible_size and (size[0] % stride or size[1] % stride))


@by_mode
@by_name
def test_output_size(name: str, mode: PaddingMode) -> None:
    for stride, size in itertools.product(strides(name), [(8, 8), (9, 7), (6, 12), (6, 11)]):
        pool, x = made(name, stride=stride, padding_mode=mode), images(2, 3, *size)
        if not takes(name, size, stride):
            with pytest.raises(UsageError, match=f"pool '{name}' .* stride {stride} divides, got {size[0]}x{size[1]}"):
                pool(x)
            continue
        expected = size if pool.keeps_size else (-(-size[0] // stride), -(-size[1] // stride))
        assert pool(x).shape == (2, 3, *expected), (stride, size)


@by_mode
@by_name
def test_maps_smaller_than_the_padding(name: str, mode: PaddingMode) -> None:
    for size, channels, training in itertools.product([(1, 1), (1, 3), (2, 2)], [1, 3], [False, True]):
        pool = made(name, channels=channels, padding_mode=mode).train(training)
        if takes(name, size, 2):
            out = pool(images(2, channels, *size))
            assert torch.isfinite(out).all()
            assert pool.keeps_size or out.shape == (2, channels, 1, -(-size[1] // 2))


@by_mode
@by_name
def test_gradients(name: str, mode: PaddingMode) -> None:
    pool = made(name, channels=2, padding_mode=mode)
    x = images(1, 2, *((6, 4) if pool.needs_divisible_size else (5, 4))).requires_grad_()
    parameters = dict(pool.named_parameters()) if pool.trainable_in_eval else {}

    def apply(x: Tensor, *values: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(pool, dict(zip(parameters, values, strict=True)), (x,))
        return out

    assert torch.autograd.gradcheck(apply, (x, *parameters.values()))


@by_name
@pytest.mark.parametrize("training", [True, False])
def test_every_parameter_learns(name: str, training: bool) -> None:
    pool = made(name).train(training)
    x = images(4, 3, 8, 8).requires_grad_()
    pool(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    learns = training or pool.trainable_in_eval
    for path, parameter in pool.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.abs().sum() > 1e-9)) == learns, path


@by_name
def test_dtype_device_memory_format_and_repetition(name: str) -> None:
    pool = made(name)
    x = images(2, 3, 8, 8)
    out = pool(x)
    assert out.dtype == torch.float64
    assert torch.equal(out, pool(x))
    torch.testing.assert_close(pool(x.contiguous(memory_format=torch.channels_last)), out)
    assert pool.float()(x.float()).dtype == torch.float32
    torch.testing.assert_close(pool(x.float()), out.float())
    assert pool.to("meta")(x.float().to("meta")).device.type == "meta"


@by_name
@pytest.mark.parametrize("training", [True, False])
def test_half_precision(name: str, training: bool) -> None:
    pool = made(name).float().train(training)
    for x in (images(2, 3, 8, 8).float(), images(2, 3, 8, 8).bfloat16(), torch.zeros(2, 3, 8, 8).bfloat16()):
        x.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = pool(x)
        out.float().square().sum().backward()
        assert x.grad is not None
        assert torch.isfinite(out).all()
        assert torch.isfinite(x.grad).all()
        assert all(torch.isfinite(p.grad).all() for p in pool.parameters() if p.grad is not None)


@by_name
def test_facts(name: str) -> None:
    facts = pools.entry(name).facts
    assert set(facts) == {"reference", "shift_equivariant", "learnable", "random"}
    pool, x = made(name), images(4, 3, 12, 12)
    assert bool(list(pool.parameters())) == facts["learnable"]
    pool.train()
    assert torch.equal(pool(x), pool(x)) != facts["random"]


def is_roll(x: Tensor, y: Tensor) -> bool:
    """Say whether y (b, c, h, w) is a circular shift of x, each image by its own."""
    rolls = itertools.product(range(x.shape[-2]), range(x.shape[-1]))
    close = [torch.isclose(torch.roll(x, by, (-2, -1)), y, 1e-9, 1e-12).flatten(1).all(1) for by in rolls]
    return bool(torch.stack(close).any(0).all())


@by_name
def test_equivariance_to_all_shifts_is_as_stated(name: str) -> None:
    for stride in [2] if pool_class(name).needs_power_of_two_stride else [2, 3]:
        pool, x = made(name, stride=stride, padding_mode="circular"), images(4, 3, 6, 12)
        out = pool(x)
        follows = [is_roll(out, pool(torch.roll(x, by, (-2, -1)))) for by in itertools.product(range(6), range(12))]
        assert all(follows) == pools.entry(name).facts["shift_equivariant"]


@by_name
def test_circular_padding_is_periodic(name: str) -> None:
    for stride in strides(name):
        pool, x = made(name, stride=stride, padding_mode="circular"), images(2, 3, 12, 24)
        moved = pool(torch.roll(x, (stride, -2 * stride), dims=(-2, -1)))
        steps = (stride, -2 * stride) if pool.keeps_size else (1, -2)
        torch.testing.assert_close(moved, torch.roll(pool(x), steps, dims=(-2, -1)))


@by_mode
@by_name
@pytest.mark.parametrize("value", [0.7, -2.5])
def test_constants(name: str, mode: PaddingMode, value: float) -> None:
    pool = made(name, padding_mode=mode)
    x = torch.full((1, 3, *((6, 8) if pool.needs_divisible_size else (7, 8))), value, dtype=torch.float64)
    out = pool(x)
    expected = torch.full_like(out, value)
    if not pool.keeps_constants or (value < 0 and not pool.signed):
        assert not torch.allclose(out, expected)
    else:
        torch.testing.assert_close(out, expected)


@by_name
def test_strides_that_are_no_power_of_two(name: str) -> None:
    if pool_class(name).needs_power_of_two_stride:
        with pytest.raises(UsageError, match="stride is a power of 2, got 3"):
            create_pool(name, 3, stride=3)


@by_mode
def test_no_two_pools_are_the_same(mode: PaddingMode) -> None:
    x = images(8, 3, 12, 12)
    outputs = {name: made(name, padding_mode=mode)(x) for name in list_pools()}
    for first, second in itertools.combinations(outputs, 2):
        assert not torch.equal(outputs[first], outputs[second]), (first, second)


@by_name
def test_parameters_follow_from_the_seed_and_the_path(name: str) -> None:
    torch.manual_seed(1)
    first = create_pool(name, 3)
    torch.manual_seed(2)
    second = create_pool(name, 3)
    for pool in (first, second):
        initialise(pool, 7)
    for path, parameter in first.named_parameters():
        assert torch.equal(parameter, second.get_parameter(path)), path


def test_bad_arguments_are_answered() -> None:
    with pytest.raises(UsageError, match="did you mean 'max'"):
        create_pool("maxx", 3)
    with pytest.raises(UsageError, match="unknown padding_mode 'mirror'"):
        create_pool("max", 3, padding_mode="mirror")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="unknown gem_local option 'pp'; did you mean 'p'"):
        create_pool("gem_local", 3, pp=2.0)
    for name, option in (("mixed", "a"), ("gem_local", "p"), ("lps", "temperature")):
        with pytest.raises(UsageError, match=r"got -1\.5"):
            create_pool(name, 3, **{option: -1.5})  # type: ignore[arg-type]


def test_a_component_carries_options() -> None:
    pool = create_pool(Component("gem_local", {"p": 4.0}), 3)
    assert float(pool.get_parameter("p").detach()) == 4
    assert float(create_pool(Component("gem_local", {"p": 4.0}), 3, p=5).get_parameter("p").detach()) == 5


def test_a_registered_class_that_is_no_pool_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Foreign(nn.Module):
        def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
            super().__init__()

    monkeypatch.setitem(pools._entries, "foreign", Entry("foreign", Foreign))
    with pytest.raises(TypeError, match=r"pool 'foreign' is not a subclass of poolbench\.pooling\.Pool"):
        create_pool("foreign", 3)


def test_the_first_argument_is_called_name() -> None:
    assert isinstance(create_pool(name="max", channels=3), Pool)
    assert isinstance(create_head(name="avg", channels=3), Head)


@pytest.mark.parametrize("name", [name for name in list_pools() if pool_class(name).sampling])
def test_a_maximum_and_the_sampling_make_up_the_pool(name: str) -> None:
    sampling = pool_class(name).sampling
    assert sampling is not None
    x = images(2, 3, 8, 12)
    rows, columns = ((0, 1), (0, 1)) if name != "max3" else ((1, 1), (1, 1))
    padded = F.pad(x, (*columns, *rows), mode="circular")
    window = 3 if name == "max3" else 2
    dense = padded.unfold(2, window, 1).unfold(3, window, 1).amax((-2, -1))
    expected = made(sampling, padding_mode="circular")(dense)
    assert torch.equal(made(name, padding_mode="circular")(x), expected)
