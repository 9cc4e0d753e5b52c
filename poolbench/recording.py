"""Forward passes: outputs in batches, and intermediate inputs and outputs of chosen modules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

CPU_ELEMENTS = 2**17  # input elements per batch: activations of larger batches leave the CPU's cache
GPU_ELEMENTS = 2**26


def batch_size(images: Tensor) -> int:
    """Return the number of images (n, c, h, w) for one forward pass, at least 1, from their size and device."""
    return max(1, (GPU_ELEMENTS if images.is_cuda else CPU_ELEMENTS) // images[0].numel())


def outputs(model: nn.Module, images: Tensor | Iterable[Tensor]) -> Tensor:
    """Return the outputs (n, ...) for images (n, c, h, w), in eval mode and without gradients.

    A tensor is split into batches of :func:`batch_size`; an iterable yields batches (b, c, h, w), which may
    be made lazily. The model stays in eval mode.
    """
    batches = images.split(batch_size(images)) if isinstance(images, Tensor) else images
    model.eval()
    with torch.no_grad():
        return torch.cat([model(batch) for batch in batches])


@contextmanager
def recorded(
    model: nn.Module,
    paths: Iterable[str],
    callback: Callable[[str, tuple[Any, ...], Any], None],
    on_start: Callable[[tuple[Any, ...]], None] | None = None,
) -> Iterator[None]:
    """Call ``callback(path, inputs, output)`` whenever a module at one of the ``paths`` of ``model`` has run.

    Paths are those of ``model.named_modules()`` ("" is the model itself). Calls come in order of execution,
    one for each call of the module. ``inputs`` are the positional arguments. Neither inputs nor output are
    copies: clone what must survive a later in-place operation. ``on_start(inputs)`` is called before each
    forward pass of the model. The hooks are removed on exit, after an error too.

    Raises AttributeError for a path that the model does not have.
    """

    def start_hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if on_start is not None:
            on_start(inputs)

    def hook_of(path: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        # torch replaces the output with whatever a hook returns, so return nothing.
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            callback(path, inputs, output)

        return hook

    with ExitStack() as hooks:
        if on_start is not None:
            hooks.enter_context(model.register_forward_pre_hook(start_hook))
        for path in paths:
            hooks.enter_context(model.get_submodule(path).register_forward_hook(hook_of(path)))
        yield
