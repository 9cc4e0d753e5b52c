"""What a definition declares: its name, facts and options, read from its source text or from its signature."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Any, Generic, TypeVar, Union, get_args, get_origin

from poolbench.core import Scalar

T = TypeVar("T")
LARGEST = sys.float_info.max


@dataclass(frozen=True)
class Option:
    """A declared option: its annotation as written ("float", "int | None", "Literal['a', 'b']") and its default."""

    name: str
    annotation: str
    default: Scalar

    @cached_property
    def _type(self) -> ast.expr:
        return ast.parse(self.annotation, mode="eval").body

    def check(self, value: Scalar) -> Scalar:
        """Return the value as the declared type, an int for a float as a float; raise TypeError for other values."""
        for alternative in _alternatives(self._type):
            match alternative, value:
                case ast.Constant(value=None), None:
                    return None
                case ast.Name(id="bool"), bool():
                    return value
                case ast.Name(id="int"), int() if not isinstance(value, bool):
                    return value
                # An id is the hash of a JSON text, which has neither NaN nor infinity.
                case ast.Name(id="float"), int() | float() if not isinstance(value, bool) and abs(value) <= LARGEST:
                    return float(value) + 0.0  # -0.0 and 0.0 are one value and have one id
                case ast.Name(id="str"), str():
                    return value
                case ast.Subscript(), str() if value in self.choices:
                    return value
        raise TypeError(self.annotation)

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed words of a Literal, () for other types."""
        return tuple(
            node.value
            for alternative in _alternatives(self._type)
            if isinstance(alternative, ast.Subscript)
            for node in ast.walk(alternative.slice)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        )

    @property
    def wanted(self) -> str:
        """What a value must be, for messages: "of type int", or "one of soft, hard"."""
        if not self.choices:
            return f"of type {self.annotation}"
        empty = [node for node in _alternatives(self._type) if isinstance(node, ast.Constant) and node.value is None]
        return f"one of {', '.join([*self.choices, *(['none'] if empty else [])])}"

    def parse(self, text: str) -> Scalar:
        """Return the value that a text such as "3", "1e-3", "true", "none" or "reflect" stands for; raise TypeError."""
        words: dict[str, Scalar] = {"true": True, "false": False, "none": None}
        candidates: list[Scalar] = [words[text.lower()]] if text.lower() in words else []
        for number in (int, float):
            try:
                candidates.append(number(text))
            except ValueError:
                continue
        for candidate in (*candidates, text):
            try:
                return self.check(candidate)
            except TypeError:
                continue
        raise TypeError(self.annotation)


def _alternatives(annotation: ast.expr) -> Iterator[ast.expr]:
    """Yield the members of a union such as int | None."""
    if isinstance(annotation, ast.BinOp):
        yield from _alternatives(annotation.left)
        yield from _alternatives(annotation.right)
    else:
        yield annotation


def declare(owner: str, name: str, annotation: str, default: Scalar) -> Option:
    """Return an option whose default is of the annotated type; raise TypeError where it is not."""
    option = Option(name, annotation, default)
    try:
        return Option(name, annotation, option.check(default))
    except TypeError:
        raise TypeError(
            f"option '{name}: {annotation} = {default!r}' of {owner}: the type is int, float, bool, str, "
            "Literal of strings, or one of these | None, and the default is a value of it"
        ) from None


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered definition: name, object, first docstring line, facts, and options in order of declaration."""

    name: str
    target: T
    summary: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Option] = field(default_factory=dict)


def signature_options(target: Any, fixed: Container[str]) -> dict[str, Option]:
    """Return the options of an imported class or function: its parameters but the ``fixed`` ones.

    Raises TypeError for a parameter without a default or with a type that options cannot have.
    """
    parameters = inspect.signature(target.__init__ if inspect.isclass(target) else target).parameters.values()
    options = {}
    for p in parameters:
        if p.name in fixed or p.kind not in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
            continue
        if p.default is p.empty or p.annotation is p.empty:
            raise TypeError(f"option '{p.name}' of {target.__qualname__} needs an annotation and a default")
        options[p.name] = declare(target.__qualname__, p.name, written(p.annotation), p.default)
    return options


def written(annotation: Any) -> str:
    """Return the source text of an annotation, which may be evaluated or postponed."""
    if isinstance(annotation, str):
        return annotation
    if annotation is type(None):
        return "None"
    if get_origin(annotation) in (Union, UnionType):
        return " | ".join(written(alternative) for alternative in get_args(annotation))
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def declared_entries(path: Path, variable: str, fixed: Container[str]) -> Iterator[Entry[None]]:
    """Yield the entries that a source file registers with ``@<variable>.register(name, **facts)``; imports nothing."""
    definitions = ast.parse(path.read_text(encoding="utf-8")).body
    classes = {node.name: node for node in definitions if isinstance(node, ast.ClassDef)}
    for node in definitions:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            summary = (ast.get_docstring(node) or "").partition("\n")[0]
            for decorator in node.decorator_list:
                for name, facts in _registration(decorator, variable):
                    yield Entry(name, None, summary, facts, _written_options(node, classes, fixed))


def _registration(decorator: ast.expr, variable: str) -> Iterator[tuple[str, dict[str, Any]]]:
    match decorator:
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id=own), attr="register"),
            args=[ast.Constant(value=str(name))],
            keywords=keywords,
        ) if own == variable:
            yield name, {str(k.arg): k.value.value for k in keywords if isinstance(k.value, ast.Constant)}


def _written_options(
    node: ast.FunctionDef | ast.ClassDef, classes: Mapping[str, ast.ClassDef], fixed: Container[str]
) -> dict[str, Option]:
    """Return the options in the source of a function, or of the ``__init__`` of a class."""
    function = _constructor(node, classes) if isinstance(node, ast.ClassDef) else node
    if function is None:
        return {}
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(positional, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return {
        argument.arg: declare(node.name, argument.arg, ast.unparse(argument.annotation), _literal(default))
        for argument, default in pairs
        if argument.arg not in fixed and argument.annotation is not None and default is not None
    }


def _literal(default: ast.expr) -> Any:
    """Return the value of a default such as 3, -1.0 or "a"; raise TypeError where it is no literal."""
    try:
        return ast.literal_eval(default)
    except ValueError:
        raise TypeError(f"the default of an option is a literal, got '{ast.unparse(default)}'") from None


def _constructor(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> ast.FunctionDef | None:
    """Return the ``__init__`` of a class, defined on the class or on a base class in the same module."""
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return statement
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in classes:
            return _constructor(classes[base.id], classes)
    return None
