"""The inputs of one run, against the workflow's JSON Schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from itertools import islice
from typing import Any

from jsonschema.exceptions import ValidationError

from opscore.errors import InvalidError, Problem
from opscore.texts import below
from tasks.cel import EvaluationError
from tasks.expressions import input_names, meant
from workflows.input_schema import Validator, joined, short

_MAX_PROBLEMS = 100


def checked_inputs(schema: Mapping[str, Any] | None, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs with the schema's defaults filled in.

    A schema that declares properties takes no others, unless it says `additionalProperties`.
    Raises InvalidError with every problem, each with its path: `inputs.repo`.
    """
    schema = schema or {}
    filled = _with_defaults(schema, inputs)
    problems = list(islice(_problems(schema, filled), _MAX_PROBLEMS))
    if problems:
        raise InvalidError("The inputs do not meet the workflow's schema.", problems)
    return filled


def _problems(schema: Mapping[str, Any], inputs: dict[str, Any]) -> Iterator[Problem]:
    names = input_names(schema)
    if names is not None:
        schema = {key: rule for key, rule in schema.items() if key != "additionalProperties"}
        for name in inputs:
            if name not in names:
                yield Problem(f"there is no such input{meant(name, names)}", below("inputs", name))
    for error in _errors(schema, inputs):
        yield Problem(short(error.message), joined("inputs", error.absolute_path))


def _errors(schema: Mapping[str, Any], inputs: dict[str, Any]) -> Iterator[ValidationError]:
    try:
        yield from Validator(schema).iter_errors(inputs)
    except EvaluationError as error:
        yield ValidationError(f"a text cannot be matched with its pattern: {error}")
    except RecursionError:
        yield ValidationError("nested too deeply")


def _with_defaults(schema: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    filled = dict(inputs)
    for name, rule in schema.get("properties", {}).items():
        if not isinstance(rule, dict):
            continue
        if name not in filled and "default" in rule:
            filled[name] = deepcopy(rule["default"])
        elif isinstance(filled.get(name), dict):
            filled[name] = _with_defaults(rule, filled[name])
    return filled
