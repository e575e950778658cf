"""The JSON Schema of a workflow's inputs, as an author wrote it: is it valid, is it safe?"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import attrs
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from opscore.texts import below
from tasks.cel import EvaluationError, compiled

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_DEFS = "#/$defs/"
#: Keywords whose values are data, and those whose keys are names.
_DATA = {"default", "const", "enum", "examples"}
_NAMES = {"properties", "$defs", "dependentSchemas"}
_NOT_OFFERED = ("$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "patternProperties")
_MATCHES = compiled("inputs.text.matches(inputs.pattern)")


def _pattern(_: Any, pattern: str, value: Any, __: Any) -> Iterator[ValidationError]:
    """Match in linear time (RE2): Python's own engine can be held for ever by a pattern."""
    if isinstance(value, str) and not _is_match(pattern, value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _is_match(pattern: str, text: str) -> bool:
    return bool(_MATCHES.value({"inputs": {"text": text, "pattern": pattern}}))


def _unique(_: Any, wanted: bool, items: Any, __: Any) -> Iterator[ValidationError]:
    """Look for equal items in linear time: the library compares every pair of them."""
    if wanted and isinstance(items, list):
        texts = {json.dumps(_canonical(item), sort_keys=True) for item in items}
        if len(texts) < len(items):
            yield ValidationError(f"{items!r} has non-unique elements")


def _canonical(value: Any) -> Any:
    """Return a value whose JSON text only equal values have: 1.0 is 1, true is not."""
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


Validator: type[Draft202012Validator] = extend(  # type: ignore[no-untyped-call]  # its stub
    Draft202012Validator, {"pattern": _pattern, "uniqueItems": _unique}
)
# The library's own method takes the validator of a part's `$schema`, which is the library's.
Validator.evolve = attrs.evolve  # type: ignore[method-assign,assignment]
_META = Validator(Validator.META_SCHEMA)


def schema_problems(
    schema: Mapping[str, Any], path: str, *, of_inputs: bool = True
) -> Iterator[tuple[str, str]]:
    """Yield (path, message) for whatever is wrong with a schema that an author wrote."""
    if schema.get("$schema", _DIALECT) != _DIALECT:
        yield below(path, "$schema"), f"only {_DIALECT} is understood"
    if of_inputs and schema.get("type", "object") != "object":
        yield below(path, "type"), "the inputs of a workflow are an object: `type: object`"
    wrong = [
        (joined(path, error.absolute_path), short(error.message))
        for error in _META.iter_errors(schema)
    ]
    defs = schema.get("$defs")
    wrong += _Risks(defs if isinstance(defs, dict) else {}).of(schema, path)
    yield from wrong
    if not wrong:
        yield from _wrong_defaults(schema, path)


@dataclass(frozen=True)
class _Risks:
    """Finds what could reach out of a schema, or make a check with it endless."""

    defs: Collection[str]

    def of(
        self, value: Any, path: str, *, in_defs: bool = False, are_names: bool = False
    ) -> Iterator[tuple[str, str]]:
        if isinstance(value, list):
            for index, item in enumerate(value):
                yield from self.of(item, f"{path}[{index}]", in_defs=in_defs)
        if not isinstance(value, dict):
            return
        if not are_names:
            yield from self._keywords(value, path, in_defs=in_defs)
        for key, item in value.items():
            if are_names or key not in _DATA:
                yield from self.of(
                    item,
                    below(path, key),
                    in_defs=in_defs or (key == "$defs" and not are_names),
                    are_names=key in _NAMES and not are_names,
                )

    def _keywords(
        self, schema: dict[str, Any], path: str, *, in_defs: bool
    ) -> Iterator[tuple[str, str]]:
        for key in _NOT_OFFERED:
            if key in schema:
                yield below(path, key), f"`{key}` is not offered"
        message = self._reference(schema.get("$ref"), in_defs=in_defs)
        if message:
            yield below(path, "$ref"), message
        message = _wrong_pattern(schema.get("pattern"))
        if message:
            yield below(path, "pattern"), message

    def _reference(self, target: Any, *, in_defs: bool) -> str | None:
        if target is None:
            return None
        if in_defs:
            return "the entries of `$defs` cannot refer to others"
        if not isinstance(target, str) or not target.startswith(_DEFS):
            return "a `$ref` names an entry of this schema's own `$defs`: `#/$defs/name`"
        if target.removeprefix(_DEFS) not in self.defs:
            return f"there is no `{target.removeprefix(_DEFS)}` in `$defs`"
        return None


def _wrong_pattern(pattern: Any) -> str | None:
    try:
        if isinstance(pattern, str):
            _is_match(pattern, "")
    except EvaluationError as error:
        return str(error)
    return None


def _wrong_defaults(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for name, rule in schema.get("properties", {}).items():
        if isinstance(rule, dict) and "default" in rule:
            whole = {**rule, "$defs": schema.get("$defs", {})}
            where = below(below(below(path, "properties"), name), "default")
            for error in Validator(whole).iter_errors(rule["default"]):
                yield joined(where, error.absolute_path), short(error.message)


def joined(path: str, steps: Sequence[str | int]) -> str:
    """Write the path of something below `path`."""
    for step in steps:
        path = f"{path}[{step}]" if isinstance(step, int) else below(path, step)
    return path


def short(message: str) -> str:
    """Shorten a message that quotes a value."""
    return message if len(message) <= 300 else f"{message[:200]} … {message[-80:]}"
