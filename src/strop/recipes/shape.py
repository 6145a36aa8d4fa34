"""What a value at each place of a recipe may be, read from the settings' annotations.

A place takes one of several dataclasses (told apart by a tag, `kind` or `name`, whose annotation
is a one-value Literal), a list of something, a mapping from texts, or a plain value ("leaf").
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass
from typing import Any, Literal, Union, get_args, get_origin

TAGS = ("kind", "name")


@dataclass(frozen=True, slots=True)
class Shape:
    """What may stand at one place.

    Attributes:
        annotation: as it is declared.
        nullable: null is allowed.
        classes: the dataclasses it may be, in the order declared.
        item: of a `tuple[X, ...]`, what an entry may be.
        entry: of a `Mapping[str, X]`, what a value may be.
    All of `classes`, `item` and `entry` empty: a leaf.
    """

    annotation: Any
    nullable: bool = False
    classes: tuple[type, ...] = ()
    item: Shape | None = None
    entry: Shape | None = None

    @property
    def tag(self) -> str | None:
        """The key that tells the classes apart, where they have one."""
        found = [tag_of(c) for c in self.classes]
        return found[0][0] if found and found[0] else None

    @property
    def tags(self) -> dict[str, type]:
        """Each class by its tag's value."""
        return {found[1]: c for c in self.classes if (found := tag_of(c))}


@functools.cache
def shape_of(annotation: Any) -> Shape:
    """The shape that an annotation declares."""
    options = union(annotation)
    rest = tuple(o for o in options if o is not type(None))
    nullable = len(rest) < len(options)
    if rest and all(dataclasses.is_dataclass(o) for o in rest):
        return Shape(annotation, nullable, classes=rest)
    if len(rest) == 1:
        origin, args = get_origin(rest[0]), get_args(rest[0])
        if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
            return Shape(annotation, nullable, item=shape_of(args[0]))
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return Shape(annotation, nullable, entry=shape_of(args[1]))
    return Shape(annotation, nullable)


@functools.cache
def fields_of(cls: type) -> Mapping[str, Shape]:
    """The settings a dataclass takes, by name."""
    hints = typing.get_type_hints(cls)
    return {f.name: shape_of(hints[f.name]) for f in _fields(cls)}


@functools.cache
def tag_of(cls: type) -> tuple[str, str] | None:
    """A dataclass's tag (key, value): its field `kind` or `name` with a one-value Literal."""
    for key in TAGS:
        if key in (known := fields_of(cls)):
            annotation = known[key].annotation
            if get_origin(annotation) is Literal and len(get_args(annotation)) == 1:
                return key, str(get_args(annotation)[0])
    return None


def default_of(cls: type, key: str, instance: Any = None) -> Any:
    """A field's default: that of `instance` where it is of this class, else the class's, else MISSING."""
    if isinstance(instance, cls):
        return getattr(instance, key)
    field = next(f for f in _fields(cls) if f.name == key)
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def chosen(shape: Shape, value: Any, default: Any = None) -> type | None:
    """The class a mapping stands for: by its tag, else the default's, else the only one there is."""
    if isinstance(value, Mapping) and shape.tag in value:
        return shape.tags.get(str(value[shape.tag]))
    if type(default) in shape.classes:
        return type(default)
    return shape.classes[0] if len(shape.classes) == 1 else None


def places(cls: type, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all settings below a dataclass, shallow ones first, through every variant."""
    deeper: list[tuple[tuple[str, ...], type]] = []
    for key, shape in fields_of(cls).items():
        yield (*prefix, key)
        inner, path = (shape.item, (*prefix, key, "0")) if shape.item else (shape, (*prefix, key))
        deeper += [(path, c) for c in inner.classes]
    for path, c in deeper:
        yield from places(c, path)


def describe(annotation: Any) -> str:
    """An annotation in words: "a whole number or null"."""
    shape = shape_of(annotation)
    words = [_words(o) for o in union(annotation) if o is not type(None)]
    return " or ".join(dict.fromkeys([*words, "null"] if shape.nullable else words))


_PLAIN = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", Any: "any value"}


def _words(annotation: Any) -> str:
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(str(a) for a in args) if len(args) > 1 else str(args[0])
    if origin is tuple and args[-1] is not Ellipsis:
        return f"a list of {len(args)}"
    if origin is tuple:
        return "a list, each " + describe(args[0])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping"
    if dataclasses.is_dataclass(annotation):
        return "a mapping"
    return getattr(annotation, "__name__", str(annotation))


def union(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union; anything else is its only one."""
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def _fields(cls: type) -> list[dataclasses.Field[Any]]:
    return [f for f in dataclasses.fields(cls) if f.init]
