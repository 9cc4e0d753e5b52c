"""What a reader has to choose: one field of a network, by which metrics. Data that tasks declare."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from poolbench.core import Scalar


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which value of a field to take, such as which pool, judged on groups that differ in nothing else.

    ``field`` is that of a cell (see ``Cell.fields``). ``lead`` begins the sentence that gives the first of ``metrics``
    for each value: "Decisions kept over all circular shifts". The other values are compared with ``reference``.
    ``where`` restricts the groups. If further fields differ among them, each of their combinations is a choice of its
    own. Metrics need a direction.
    """

    field: str
    lead: str
    reference: Scalar
    metrics: Sequence[str]
    where: Mapping[str, Scalar] = dataclasses.field(default_factory=dict)
