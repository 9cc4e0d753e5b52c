"""Memory between two training steps: keep what was freed, since getting it back from the system is slow."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache

# Parameters of mallopt(3), glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
LARGEST_INT = 2**31 - 1


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Let glibc keep freed tensors for the next ones, in this process; return whether it does.

    By default every large tensor is mapped from the system and unmapped when freed, and the system hands
    out its pages anew, zeroed one by one, in every step. Kept instead, on the heap, they are there already.
    Up to 2 GB of free memory stay with the process, and the gaps between what is in use; more than that is
    given back. Does nothing without glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, LARGEST_INT))
