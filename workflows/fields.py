"""The keys of a definition, and what each may hold: for the reader and for the JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.flow import JOINS, ON_ITEM_FAILURE
from workflows import parts, values
from workflows.shapes import (
    CODE,
    DURATION,
    MAP,
    TEXT,
    TEXTS,
    Field,
    Schema,
    object_schema,
    whole,
    words,
)
from workflows.values import NAME as NAME

KEY_RULE = "letters, digits, `_` and `-`, at most 100, beginning with a letter or `_`"
ON_EXPIRY = ("approve", "reject", "fail")
_KEY = {"propertyNames": {"pattern": f"^{values.KEY.pattern}$"}}
_PRIORITY = whole("priority", 0, 9, "0 to 9, 9 first; default: that of the run, which is 5.")
_DESCRIPTION = Field("description", values.text, TEXT, "For people.")

# ------------------------------------------------------------ `with` of the engine's own executors
_WAIT = {
    "duration": Field("duration", values.or_expression(values.duration), DURATION, "How long."),
    "until": Field("until", values.or_expression(values.moment), TEXT, "A time with its zone."),
}
_SIGNAL = {"name": Field("name", values.text, TEXT, "Default: the key of the task.")}
_APPROVAL = {
    "message": Field("message", values.text, TEXT, "What is asked."),
    "role": Field("role", values.or_expression(values.word), TEXT, "The group that may decide."),
    "expires": Field("expires", values.or_expression(values.duration), DURATION, "How long."),
    "on_expiry": Field("on_expiry", values.one_of(ON_EXPIRY), words(ON_EXPIRY), "Default: fail."),
}
#: `uses` -> the keys of its `with`; the others take any.
WITH: Mapping[str, Mapping[str, Field]] = {
    "wait": _WAIT,
    "signal": _SIGNAL,
    "approval": _APPROVAL,
}

# ------------------------------------------------------------ tasks
_TASKS: Schema = {
    "type": "object",
    "minProperties": 1,
    **_KEY,
    "additionalProperties": {"$ref": "#/$defs/task"},
}
_USES = "agent, wait, signal, approval, or workflow:<name>[@version]; default: agent."
TASK: Mapping[str, Field] = {
    "description": _DESCRIPTION,
    "extends": Field("extends", values.texts, TEXTS, "Templates that it is built on."),
    "uses": Field("uses", values.uses, TEXT, _USES),
    "needs": Field(
        "needs", values.texts, TEXTS, "Tasks that end first.", ("depends_on", "dependencies")
    ),
    "join": Field(
        "join", values.one_of(JOINS), words(JOINS), "When it runs, once those have ended."
    ),
    "if": Field("condition", values.condition, CODE, "CEL; not true: it is skipped.", ("when",)),
    "for_each": Field(
        "for_each", values.items, {"type": ["string", "array"]}, "Done once for each item."
    ),
    "max_parallel": whole("max_parallel", 1, values.MAX_ITEMS, "Items at once; default: all."),
    "on_item_failure": Field(
        "on_item_failure",
        values.one_of(ON_ITEM_FAILURE),
        words(ON_ITEM_FAILURE),
        "What the failure of an item does to the others.",
    ),
    "repeat": parts.REPEAT,
    "capability": parts.CAPABILITY,
    "requires": parts.REQUIRES,
    "prefers": parts.PREFERS,
    "sticky": parts.STICKY,
    "with": parts.WITH,
    "tasks": Field("tasks", values.mapping, _TASKS, "A block: these tasks are the task."),
    "retry": parts.RETRY,
    "timeout": parts.TIMEOUT,
    "priority": _PRIORITY,
    "returns": Field("returns", values.mapping, MAP, "JSON Schema of the result."),
    "outputs": Field("outputs", values.mapping, MAP, "Named values; of a block: its result."),
    "catch": parts.CATCH,
    "undo": parts.UNDO,
    "concurrency": parts.CONCURRENCY,
    "rate_limit": parts.RATE_LIMIT,
    "resource": Field(
        "resources",
        values.resources,
        TEXTS,
        "What it uses outside (`openai`): each name has a circuit breaker.",
    ),
}
#: What `defaults` may say; the last two for tasks with `for_each` alone.
DEFAULTS = {
    key: TASK[key]
    for key in (
        "retry",
        "timeout",
        "priority",
        "requires",
        "prefers",
        "max_parallel",
        "on_item_failure",
    )
}
#: Key, or attribute of the flow -> who has it; the others are for all.
FOR = {
    "capability": ("agent",),
    "requires": ("agent",),
    "prefers": ("agent",),
    "sticky": ("agent",),
    "retry": ("agent", "block", "workflow"),
    "queue_timeout_s": ("agent",),
    "heartbeat_s": ("agent",),
    "concurrency": ("agent",),
    "rate_limit": ("agent",),
    "resource": ("agent",),
}

# ------------------------------------------------------------ the top
_TEMPLATES: Schema = {
    "type": "object",
    **_KEY,
    "additionalProperties": {"$ref": "#/$defs/template"},
}
_NAME: Schema = {**TEXT, "pattern": f"^{values.NAME.pattern}$"}
_VERSION: Schema = {"type": ["string", "number"]}
TOP: Mapping[str, Field] = {
    "name": Field("name", values.name, _NAME, "Its name in the project."),
    "version": Field("version", values.version, _VERSION, "Your word for it; default: a number."),
    "description": _DESCRIPTION,
    "priority": _PRIORITY,
    "fairness_key": Field(
        "fairness_key", values.key_template, TEXT, "Whose work a run is that does not say."
    ),
    "inputs": Field("inputs", values.mapping, MAP, "JSON Schema of the inputs."),
    "concurrency": parts.CONCURRENCY,
    "defaults": Field(
        "defaults", values.mapping, object_schema(DEFAULTS), "For agents' tasks that do not say."
    ),
    "templates": Field("templates", values.mapping, _TEMPLATES, "Named parts of tasks."),
    "tasks": Field("tasks", values.mapping, _TASKS, "What is done."),
    "finally": Field("finally_", values.mapping, _TASKS, "What is done at the end in any case."),
    "outputs": Field("outputs", values.mapping, MAP, "What a run gives; may read all tasks."),
}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the format, for editors."""
    template = {**object_schema(TASK), "allOf": [_with_of(uses) for uses in WITH]}
    kinds = [{"required": [key]} for key in ("capability", "tasks", "uses", "extends")]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Ops-Core workflow",
        **object_schema(TOP, ["name", "tasks"]),
        "$defs": {"task": {**template, "anyOf": kinds}, "template": template},
    }


def _with_of(uses: str) -> Schema:
    """Return what the schema of a task adds for one of the engine's own executors."""
    is_it = {"properties": {"uses": {"const": uses}}, "required": ["uses"]}
    return {"if": is_it, "then": {"properties": {"with": object_schema(WITH[uses])}}}
