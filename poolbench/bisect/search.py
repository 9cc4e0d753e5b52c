"""Binary search for the first bad item of a list in which some items cannot be tested."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, TypeVar

T = TypeVar("T")


class Verdict(Enum):
    """What the test of one commit says."""

    GOOD = auto()
    BAD = auto()
    UNUSABLE = auto()


@dataclass(frozen=True)
class Found(Generic[T]):
    """The first bad item is one of ``candidates``, oldest first: several only where the others are unusable.

    ``tested`` counts the tests.
    """

    candidates: Sequence[T]
    tested: int


def first_bad(items: Sequence[T], test: Callable[[T], Verdict]) -> Found[T]:
    """Return the first bad one of the items, of which the last is known to be bad.

    Once bad, items stay bad. ``test`` is called at most log2(number of items) + 1 times, and once more for each
    unusable item that it meets.
    """
    low, high = -1, len(items) - 1
    unusable: set[int] = set()
    tested = 0
    while left := [index for index in range(low + 1, high) if index not in unusable]:
        middle = left[len(left) // 2]
        tested += 1
        match test(items[middle]):
            case Verdict.GOOD:
                low = middle
            case Verdict.BAD:
                high = middle
            case Verdict.UNUSABLE:
                unusable.add(middle)
    return Found(items[low + 1 : high + 1], tested)
