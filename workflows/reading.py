"""Plain data to a definition: every problem at once, each with its path and line."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from typing import Any

from opscore.documents import Document, kind_of
from opscore.errors import InvalidError, Problem
from opscore.texts import below
from tasks.expressions import meant
from tasks.flow import Flow
from workflows import fields, values
from workflows.checks import check
from workflows.input_schema import schema_problems
from workflows.shapes import Field
from workflows.spec import Block, Definition, TaskSpec
from workflows.templates import (
    MAX_BLOCKS,
    MAX_PROBLEMS,
    MAX_TASKS,
    EnoughError,
    Written,
    written_out,
)

_ALIASES = {alias: key for key, each in fields.TASK.items() for alias in each.aliases}
_IN_FLOW = frozenset(each.name for each in dataclass_fields(Flow)) - {"block"}


def definition_of(document: Document) -> Definition:
    """Return the definition; raises InvalidError with all problems (at most a hundred)."""
    written = written_out(document)
    with suppress(EnoughError):
        definition = _Reader(written).definition()
        check(definition, written)
        if not written.problems:
            return definition
    problems = written.problems
    more = [Problem(f"there are more than {MAX_PROBLEMS} problems")] * (
        len(problems) > MAX_PROBLEMS
    )
    problems = sorted(problems[:MAX_PROBLEMS], key=lambda problem: problem.line or 0)
    count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
    raise InvalidError(f"The definition has {count}.", [*problems, *more])


class _Reader:
    """Reads what is there; what is wrong becomes a problem and counts as absent."""

    def __init__(self, document: Written) -> None:
        self.document = document
        self._slips = 0
        self._name = ""
        self._left = MAX_TASKS
        self._sound: set[int] = set()
        """Schemas that are valid, by identity: the document keeps them alive."""

    def definition(self) -> Definition:
        data = self.document.data
        top = self._fields(data, "", fields.TOP)
        self._demand(data, "", "name", "a workflow needs a `name`")
        self._name = top.setdefault("name", "")
        self._parts(top.pop("templates", {}), top.pop("defaults", {}))
        if not data.get("tasks") and not isinstance(data.get("tasks"), list):
            self._add("tasks", "a workflow needs at least one task")
        self._check_schema(top, "inputs", "")
        if top.get("concurrency"):
            top["concurrency"] = _keyed(top["concurrency"], self._name)
        main = self._tasks(top.pop("tasks", {}), "tasks", 0)
        last = self._tasks(top.pop("finally_", {}), "finally", 0)
        return Definition(tasks=main, finally_=last, **top)

    def _parts(self, templates: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        """Check what tasks are built on; values that lack something may get it from the task."""
        self._fields(defaults, "defaults", fields.DEFAULTS, is_part=True)
        for name, data in templates.items():
            path = below("templates", name)
            self._check_key(name, path)
            if isinstance(data, dict):
                self._fields(data, path, fields.TASK, is_part=True)

    # -------------------------------------------------------- tasks
    def _tasks(self, tasks: Mapping[str, Any], path: str, depth: int) -> tuple[TaskSpec, ...]:
        if len(tasks) > self._left:
            if self._left >= 0:
                count = len(tasks) + MAX_TASKS - self._left
                self._add(path, f"{count} tasks; at most {MAX_TASKS} are allowed")
            self._left = -1
            return ()
        self._left -= len(tasks)
        return tuple(self._task(key, data, below(path, key), depth) for key, data in tasks.items())

    def _task(self, key: str, data: Any, path: str, depth: int) -> TaskSpec:
        self._check_key(key, path)
        if not isinstance(data, dict):
            self._add(path, f"a task is a map with a `capability`, not {kind_of(data)}")
            return TaskSpec(key)
        said = self._fields(data, path, fields.TASK)
        said.pop("extends", None)
        self._check_schema(said, "returns", path)
        said |= said.pop("timeouts", {})
        if data.get("tasks") is not None:
            self._block(data, said, path, depth)
        spec = TaskSpec(key, **{name: said[name] for name in said.keys() - _IN_FLOW})
        flow = {name: said[name] for name in said.keys() & _IN_FLOW}
        self._suits(spec.executor, data, flow, path)
        return replace(spec, inputs=self._inputs(spec, path), flow=self._flow(flow, path))

    def _block(self, data: Mapping[str, Any], said: dict[str, Any], path: str, depth: int) -> None:
        where = below(path, "tasks")
        if "uses" in said:
            self._add(
                below(path, "uses"), "a task with `tasks` of its own is a block, it uses them"
            )
        if not said.get("tasks", True):
            self._add(where, "a block needs at least one task")
        inner = said.pop("tasks", {})
        if depth >= MAX_BLOCKS:
            self._add(where, f"blocks are nested more than {MAX_BLOCKS} deep")
            inner = {}
        said["uses"] = "block"
        said["block"] = Block(self._tasks(inner, where, depth + 1), said.pop("outputs", None))

    def _suits(
        self, executor: str, data: Mapping[str, Any], flow: Mapping[str, Any], path: str
    ) -> None:
        """Tell what a task of this kind needs, and what it cannot have."""
        if executor == "agent" and data.get("uses") not in (None, "agent"):
            return  # what it uses is not known, and that is said already
        if executor == "agent":
            self._demand(data, path, "capability", "a task needs a `capability`")
        for key, kinds in fields.FOR.items():
            if executor not in kinds and (data.get(key) is not None or key in flow):
                where = _TIMEOUTS.get(key, key)
                self._add(f"{path}.{where}", f"`{where}` is nothing for {_KINDS[executor]}")
        if "for_each" not in flow:
            for key in flow.keys() & {"max_parallel", "on_item_failure"}:
                self._add(below(path, key), f"`{key}` belongs to `for_each`")

    def _flow(self, said: dict[str, Any], path: str) -> Flow:
        default = f"{self._name}.{path.partition('.')[2].replace('.tasks.', '.')}"
        for key in said.keys() & {"concurrency", "rate_limit"}:
            said[key] = _keyed(said[key], default)
        return Flow(**said)

    def _inputs(self, spec: TaskSpec, path: str) -> Mapping[str, Any]:
        """Read the `with` of what the engine does itself."""
        table = fields.WITH.get(spec.executor)
        if table is None:
            return spec.inputs
        where = below(path, "with")
        said = self._fields(spec.inputs, where, table)
        if spec.uses == "wait" and len(spec.inputs.keys() & table.keys()) != 1:
            self._add(where, "`wait` takes `with: {duration: …}` or `with: {until: …}`")
        if spec.uses == "approval" and "on_expiry" in said and "expires" not in said:
            self._add(where, "`on_expiry` belongs to `expires`")
        return {"name": spec.key, **said} if spec.uses == "signal" else said

    # -------------------------------------------------------- maps
    def _fields(
        self,
        data: Mapping[str, Any],
        path: str,
        table: Mapping[str, Field],
        *,
        is_part: bool = False,
    ) -> dict[str, Any]:
        """Return attribute -> value of what is there and valid; `key:` with nothing is absent.

        `is_part`: what a map lacks is no problem, and the values that it would become are
        left out.
        """
        said: dict[str, Any] = {}
        for key, value in data.items():
            where = below(path, key)
            field = table.get(_ALIASES.get(key, key))
            if field is None:
                self._add(where, f"unknown key `{key}`{meant(key, table)}")
                continue
            try:
                if value is not None:
                    self._field(field, value, where, said, is_part=is_part)
            except values.MisfitError as error:
                self._add(where + error.place, str(error))
        return said

    def _field(
        self, field: Field, value: Any, path: str, said: dict[str, Any], *, is_part: bool
    ) -> None:
        if field.shape is None or not isinstance(value, dict):
            said[field.attribute] = field.read(value)
            return
        before = self._slips
        inner = self._fields(value, path, field.shape.table, is_part=is_part)
        if not is_part and self._slips == before:
            said[field.attribute] = field.shape.build(inner)

    def _check_key(self, key: str, path: str) -> None:
        if not values.KEY.fullmatch(key):
            self._add(path, f"the key `{key}` is not valid: {fields.KEY_RULE}")

    def _check_schema(self, said: dict[str, Any], key: str, path: str) -> None:
        """Take a schema away that is not valid."""
        schema = said.get(key)
        # Tasks that extend one template share its schema.
        if not schema or id(schema) in self._sound:
            return
        found = list(schema_problems(schema, below(path, key), of_inputs=key == "inputs"))
        for place, message in found:
            self._add(place, message)
        if found:
            said.pop(key)
        else:
            self._sound.add(id(schema))

    def _demand(self, data: Mapping[str, Any], path: str, key: str, message: str) -> None:
        if data.get(key) is None:
            self._add(path, message)

    def _add(self, path: str, message: str) -> None:
        self._slips += 1
        self.document.add(message, path)


_TIMEOUTS = {"queue_timeout_s": "timeout.queue", "heartbeat_s": "timeout.heartbeat"}
_KINDS = {
    "agent": "an agent's task",
    "block": "a block",
    "wait": "a wait",
    "signal": "a signal",
    "approval": "an approval",
    "workflow": "a workflow",
}


def _keyed(limit: Any, default: str) -> Any:
    """Return a limit that has a key."""
    return limit if limit.key else replace(limit, key=default)
