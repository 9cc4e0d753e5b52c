"""What is set once per process before it trains: threads, memory, denormals, deterministic kernels."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import lru_cache

import torch

# Parameters of mallopt(3), glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
MAX_INT = 2**31 - 1


def prepare_process(device: str, deterministic: bool = False) -> None:
    """Prepare this process for training on a device ("cpu", "cuda:0").

    One CPU thread, unless OMP_NUM_THREADS is set: sums over two threads round differently from sums over one, so the
    number of jobs must not decide. ``deterministic`` restricts a GPU to kernels with reproducible bits; an operation
    without one then raises RuntimeError.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    # The activations of a dying network become denormal, which a CPU computes 20 times slower than zeros.
    torch.set_flush_denormal(True)
    if device == "cpu":
        keep_freed_memory()
    if deterministic:
        # cuBLAS reads it on first use.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic)


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Make glibc's malloc reuse the memory of freed tensors in this process; return whether it does.

    By default glibc maps every large tensor from the system and unmaps it when it is freed, and the system zeroes
    its pages again in every training step. Up to 2 GB of freed memory stay with the process. Does nothing without
    glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, MAX_INT))
