"""The activation that follows a convolution in a traced network, and where a module can be put after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from poolbench.surgery.borders import Refusal
from poolbench.surgery.trace import Call, Trace

NONLINEAR = {
    *("relu", "relu6", "hardtanh", "silu", "gelu", "hardswish", "hardsigmoid", "leaky_relu", "elu", "selu", "celu"),
    *("mish", "prelu", "rrelu", "sigmoid", "tanh", "softplus", "softsign", "logsigmoid", "threshold", "tanhshrink"),
}
NORMS = {"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "local_response_norm", "normalize"}
OVER_POSITIONS = {"group_norm", "instance_norm"}
# With one map among their inputs these change its values one by one, or its layout, or nothing.
NEUTRAL = {
    *("add", "sub", "mul", "div", "__add__", "__radd__", "__mul__", "__rmul__", "clamp", "exp", "dropout", "dropout2d"),
    *("feature_dropout", "identity", "contiguous", "clone", "to", "float", "type_as", "permute", "detach"),
}


@dataclass(frozen=True)
class Slot:
    """A place in a network: before or after the module at ``path``.

    ``op`` is the number of the first function that runs after a place before the module, or that of the last function
    that runs before a place after it.
    """

    path: str
    side: Literal["before", "after"]
    op: int

    @property
    def time(self) -> int:
        """A number by which places are sorted in the order in which they are reached."""
        return 2 * self.op + (self.side == "after")


def activation_after(graph: Trace, call: Call) -> tuple[int, bool] | None:
    """Return the value that the activation after a convolution makes, None if no activation follows.

    Between them only normalisation and layers that are neutral when evaluating may run. The second value says whether
    a normalisation takes its statistics from all positions of the map: those of a larger map are others.
    """
    value, over_positions = call.outputs[0], False
    while True:
        unit = _next(graph, value)
        if unit is None:
            return None
        names = {name.removesuffix("_") if not name.startswith("__") else name for name in unit[0]}
        value = unit[1]
        over_positions |= bool(names & OVER_POSITIONS)
        if names & NONLINEAR and names <= NONLINEAR | NORMS | NEUTRAL:
            return value, over_positions
        if not names <= NORMS | NEUTRAL:
            return None


def _next(graph: Trace, value: int) -> tuple[Sequence[str], int] | None:
    """Return the functions, and the value they make, of the only layer that uses a value; None if there are more."""
    users = graph.consumers[value]
    if len(users) == 1:
        op = graph.ops[users[0]]
        alone = len(set(op.inputs)) == 1 and len(op.outputs) == 1
        return ([op.name], op.outputs[0]) if alone else None
    # An activation of several functions, such as x * sigmoid(x), inside a module.
    around = [
        call
        for call in graph.calls
        if call.unary and call.inputs == (value,) and users and all(call.covers(user) for user in users)
    ]
    return (graph.names(around[-1]), around[-1].outputs[0]) if around and len(around[-1].outputs) == 1 else None


def slot_after(graph: Trace, value: int) -> Slot:
    """Return the place where a module sees a value before all that use it.

    That is after the module that makes the value, or before the only one that uses it. Raises Refusal if the value is
    made in the code of a larger module and used in several.
    """
    producer, users = graph.producers[value], graph.consumers[value]
    makers = [
        call
        for call in graph.calls
        if call.outputs == (value,) and call.covers(producer) and call.unary and graph.runs_once(call.path)
    ]
    if makers:
        return Slot(makers[-1].path, "after", producer)
    takers = [
        call
        for call in graph.calls
        if call.inputs == (value,)
        and call.unary
        and graph.runs_once(call.path)
        and users
        and all(call.covers(user) for user in users)
    ]
    if takers:
        return Slot(takers[-1].path, "before", takers[-1].start)
    raise Refusal(
        "the activation after it has no module of its own, and no single layer uses its output; "
        "use placement='before_norm'"
    )
