"""The data set of the plugin."""

import torch

from poolbench.core import DataLocation
from poolbench.data import Dataset, Split, images_dataset
from poolbench.registry import datasets


@datasets.register("boards")
def boards(location: DataLocation, device: str, size: int = 16) -> Dataset:
    """Noisy boards of stripes or squares, gray, drawn once."""
    generator = torch.Generator().manual_seed(0)
    row, column = (torch.arange(size) // 2)[:, None], (torch.arange(size) // 2)[None, :]
    patterns = torch.stack(((column % 2).expand(size, size), (row + column) % 2))

    def draw(count: int) -> Split:
        labels = torch.arange(count) % 2
        noise = torch.randint(0, 120, (count, size, size), generator=generator)
        return Split((130 * patterns[labels] + noise).to(torch.uint8)[:, None], labels).to(device)

    return images_dataset("boards", ("stripes", "squares"), draw(300), draw(100), "drawn by poolbench_checkers")
