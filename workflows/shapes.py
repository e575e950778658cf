"""Keys of a definition as values: how each is read, and what editors know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workflows import values

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a definition."""

    attribute: str
    """Of the value that the map becomes."""
    read: values.Read
    """Value -> attribute's value; raises MisfitError. Where there is a shape: of all but maps."""
    schema: Schema
    about: str = ""
    aliases: tuple[str, ...] = ()
    shape: Shape | None = None
    """How a map is read."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A map whose keys are fields of their own."""

    table: Mapping[str, Field]
    build: Callable[[dict[str, Any]], Any]
    """Attributes -> value; raises MisfitError when they do not go together."""


TEXT: Schema = {"type": "string"}
MAP: Schema = {"type": "object"}
TEXTS: Schema = {"type": ["string", "array"], "items": TEXT}
DURATION: Schema = {"type": ["string", "number"], "examples": ["90s", "2m", "1h30m", "500ms"]}
CODE: Schema = {"type": ["string", "boolean"]}


def words(options: Sequence[str]) -> Schema:
    """Return the JSON Schema of one of some words."""
    return {"enum": list(options)}


def object_schema(table: Mapping[str, Field], required: Sequence[str] = ()) -> dict[str, Any]:
    """Return the JSON Schema of a map with these keys."""
    properties: dict[str, Any] = {}
    for key, each in table.items():
        schema = each.schema if key in required else _or_nothing(each.schema)
        properties[key] = {**schema, **({"description": each.about} if each.about else {})}
        for alias in each.aliases:
            properties[alias] = {**schema, "description": f"Another word for `{key}`."}
    said = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**said, **({"required": list(required)} if required else {})}


def _or_nothing(schema: Schema) -> Schema:
    """Allow null: a key without a value counts as absent."""
    if "type" in schema:
        kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        return {**schema, "type": [*kinds, "null"]}
    for keyword, nothing in (("enum", None), ("anyOf", {"type": "null"})):
        if keyword in schema:
            return {**schema, keyword: [*schema[keyword], nothing]}
    return schema


def nested(
    attribute: str,
    shape: Shape,
    about: str,
    short: Field | None = None,
    build: Callable[[Any], Any] | None = None,
) -> Field:
    """Return a field that is a map; `short` reads a value that is no map, for `build`."""
    whole_map = object_schema(shape.table)
    if short is None or build is None:
        return Field(attribute, values.mapping, whole_map, about, shape=shape)

    def read(value: Any) -> Any:
        return build(short.read(value))

    return Field(attribute, read, {"anyOf": [dict(short.schema), whole_map]}, about, shape=shape)


def whole(attribute: str, low: int, high: int, about: str) -> Field:
    """Return a field that is a whole number."""
    schema = {"type": "integer", "minimum": low, "maximum": high}
    return Field(attribute, values.whole(low, high), schema, about)


def duration(attribute: str, about: str) -> Field:
    """Return a field that is a duration."""
    return Field(attribute, values.duration, DURATION, about)
