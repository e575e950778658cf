"""What values may be, as far as schemas say: the types of the upload check."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

#: Larger and deeper types are kept without their details, so that every check stays quick.
MAX_WEIGHT = 5_000
MAX_DEPTH = 24
MAX_VALUES = 200
_DEFS = "#/$defs/"
_KINDS = {
    "null": ("null",),
    "boolean": ("bool",),
    "integer": ("int",),
    "number": ("int", "double"),
    "string": ("string",),
    "array": ("list",),
    "object": ("map",),
}
#: Keywords that say more than is followed here.
_OPENING = ("allOf", "if", "dependentSchemas", "patternProperties", "not")
_WORDS = {
    "null": "null",
    "bool": "true or false",
    "int": "a whole number",
    "double": "a number",
    "string": "text",
    "list": "a list",
    "map": "a map",
}


@dataclass(frozen=True, slots=True)
class Type:
    """What a value may be. The default: anything."""

    kinds: frozenset[str] | None = None
    """CEL's words (int, double, string, list, map …); None: any, empty: there is no value yet."""
    item: Type | None = None
    """Of a list's elements; None: not known."""
    fields: Mapping[str, Type] | None = field(default=None, hash=False)
    """Of a map; None: not known."""
    is_open: bool = False
    """The map may have other fields too."""
    values: frozenset[str] | None = None
    """Which texts it can be, if it is a text; None: any."""
    weight: int = field(default=1, compare=False)
    depth: int = field(default=1, compare=False)

    @property
    def is_known(self) -> bool:
        """Tell whether anything can be said about the value."""
        return bool(self.kinds)

    def may_be(self, *kinds: str) -> bool:
        """Tell whether the value can be one of these."""
        return not self.kinds or not self.kinds.isdisjoint(kinds)

    def is_a(self, kind: str) -> bool:
        """Tell whether the value is of this kind, or null."""
        return self.kinds is not None and self.kinds - {"null"} == {kind}

    def element(self) -> Type:
        """Return the type of a list's elements, or of a map's keys."""
        if self.is_a("list"):
            return self.item or ANY
        return STRING if self.is_a("map") else ANY

    def select(self, name: str) -> Type | None:
        """Return the type of a field; None when the map cannot have it."""
        if not self.is_a("map") or self.fields is None:
            return ANY
        return self.fields.get(name, ANY if self.is_open else None)

    def __str__(self) -> str:
        words = [_WORDS.get(kind, kind) for kind in sorted(self.kinds or ())]
        return " or ".join(["a number"] if words == ["a number", "a whole number"] else words)


def scalar(*kinds: str) -> Type:
    """Return the type of a value of these kinds."""
    return Type(frozenset(kinds))


ANY = Type()
NOTHING = Type(frozenset())
BOOL, INT, DOUBLE, STRING, NULL = map(scalar, ("bool", "int", "double", "string", "null"))


def list_of(item: Type) -> Type:
    """Return the type of a list."""
    return _made(frozenset({"list"}), item)


def map_of(fields: Mapping[str, Type] | None) -> Type:
    """Return the type of a map; None: of one that nothing is known of."""
    return _made(frozenset({"map"}), None, fields)


def _made(
    kinds: frozenset[str],
    item: Type | None,
    fields: Mapping[str, Type] | None = None,
    is_open: bool = False,
) -> Type:
    parts = [*([item] if item else ()), *(fields or {}).values()]
    weight = 1 + sum(part.weight for part in parts)
    depth = 1 + max((part.depth for part in parts), default=0)
    if weight > MAX_WEIGHT or depth > MAX_DEPTH:
        return Type(kinds)
    return Type(kinds, item, fields, is_open, weight=weight, depth=depth)


def text_of(values: Iterable[str]) -> Type:
    """Return the type of a text that is one of these."""
    known = frozenset(values)
    return Type(frozenset({"string"}), values=known if len(known) <= MAX_VALUES else None)


def either(types: Iterable[Type]) -> Type:
    """Return what a value is that is of one of these types."""
    return reduce(_both, types, NOTHING)


def _both(one: Type, other: Type) -> Type:
    if one.kinds == frozenset() or one == other:
        return other
    if other.kinds == frozenset():
        return one
    if one.kinds is None or other.kinds is None:
        return ANY
    kinds = one.kinds | other.kinds
    lists = [each.item for each in (one, other) if "list" in (each.kinds or ())]
    item = None if None in lists or not lists else either(each for each in lists if each)
    maps = [each for each in (one, other) if "map" in (each.kinds or ())]
    made = _made(kinds, item, *_fields_of(maps))
    return replace(made, values=_values_of(one, other))


def _values_of(*types: Type) -> frozenset[str] | None:
    texts = [each.values for each in types if "string" in (each.kinds or ())]
    if not texts or None in texts:
        return None
    values: frozenset[str] = frozenset().union(*(each or () for each in texts))
    return values if len(values) <= MAX_VALUES else None


def _fields_of(maps: Sequence[Type]) -> tuple[Mapping[str, Type] | None, bool]:
    if not maps or any(each.fields is None for each in maps):
        return None, False
    names: dict[str, list[Type]] = {}
    for each in maps:
        for name, type_ in (each.fields or {}).items():
            names.setdefault(name, []).append(type_)
    fields = {name: either(types) for name, types in names.items()}
    return fields, any(each.is_open for each in maps)


# ------------------------------------------------------------ JSON Schema
def of_schema(schema: Any) -> Type:
    """Return what a valid JSON Schema says; what it does not say clearly is anything.

    An object that declares properties has no others, unless it says `additionalProperties`.
    """
    defs = schema.get("$defs") if isinstance(schema, Mapping) else None
    return _of(schema, defs if isinstance(defs, Mapping) else {})


def _of(schema: Any, defs: Mapping[str, Any]) -> Type:
    if not isinstance(schema, Mapping) or any(key in schema for key in _OPENING):
        return ANY
    if "$ref" in schema:
        return _of(defs.get(str(schema["$ref"]).removeprefix(_DEFS)), {})
    for key in ("anyOf", "oneOf"):
        if key in schema:
            rest = {"properties", "items", "type", "enum", "const"} & schema.keys()
            return ANY if rest else either(_of(each, defs) for each in schema[key])
    if "const" in schema or "enum" in schema:
        return either(map(of_literal, schema.get("enum", [schema.get("const")])))
    return _of_words(schema, defs)


def _of_words(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> Type:
    said = schema.get("type")
    if said is None:
        said = [word for word, key in _IMPLIED.items() if key in schema]
    words = [said] if isinstance(said, str) else said or []
    if not words:
        return ANY
    kinds = frozenset(kind for word in words for kind in _KINDS.get(word, ()))
    item = _of(schema["items"], defs) if "items" in schema and "prefixItems" not in schema else None
    return _made(kinds, item, *_properties(schema, defs))


_IMPLIED = {"object": "properties", "array": "items"}


def _properties(
    schema: Mapping[str, Any], defs: Mapping[str, Any]
) -> tuple[Mapping[str, Type] | None, bool]:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return None, False
    is_open = schema.get("additionalProperties", False) is not False
    return {name: _of(each, defs) for name, each in properties.items()}, is_open


_OF_PYTHON = {type(None): NULL, bool: BOOL, int: INT, float: DOUBLE, str: STRING}


def of_value(value: Any) -> Type:
    """Return the type of a value of JSON."""
    if isinstance(value, Mapping):
        return map_of({str(name): of_value(each) for name, each in value.items()})
    if isinstance(value, list | tuple):
        return list_of(either(of_value(each) for each in value))
    return _OF_PYTHON.get(type(value), ANY)


def of_literal(value: Any) -> Type:
    """Return the type of a value that stands in the text: of a text, which one."""
    return text_of([value]) if isinstance(value, str) else of_value(value)
