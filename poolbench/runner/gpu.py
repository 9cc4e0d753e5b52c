"""What a GPU is doing while a cell trains."""

from __future__ import annotations

from contextlib import suppress

PREFIX = "gpu_"


def gpu_state(device: str) -> dict[str, float]:
    """Return {"gpu_memory_mb", "gpu_utilization"} of a device such as "cuda:0"; {} for a CPU.

    Memory is the peak that torch has allocated since the last call, in MB. Utilization is the share of the last second
    (at most) in which a kernel ran, in percent. It is left out if nvidia-ml-py is not installed or the driver does not
    tell.
    """
    if not device.startswith("cuda"):
        return {}
    import torch

    found = {"memory_mb": torch.cuda.max_memory_allocated(device) / 1e6}
    torch.cuda.reset_peak_memory_stats(device)
    # Depending on driver and card: ModuleNotFoundError, RuntimeError, or an error of NVML.
    with suppress(Exception):
        found["utilization"] = float(torch.cuda.utilization(device))
    return {f"{PREFIX}{name}": value for name, value in found.items()}
