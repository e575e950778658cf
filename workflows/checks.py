"""What only the whole definition can show: the order of the tasks, what expressions read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from opscore.texts import below
from tasks.cel_types import ANY, BOOL, INT, STRING, Type, list_of, map_of, of_schema
from tasks.expression_checks import Names, expression_type, task_type, template_type
from tasks.expressions import meant
from workflows.ancestry import Upstream, cycles
from workflows.spec import Block, Definition, TaskSpec
from workflows.templates import Written

_Types = Mapping[str, Type | None]
_ERROR = map_of({"type": STRING, "message": STRING})
_DECIDED = map_of({"approved": BOOL, "by": STRING, "comment": STRING})
#: Which ones there are is known when an agent takes the task, not when this is written.
SECRETS = of_schema({"type": "object", "additionalProperties": {"type": "string"}})
_NOT_YET = "nothing has run yet where this is read; use `inputs`"


def check(definition: Definition, document: Written) -> None:
    """Add to the document what is wrong between the tasks of the definition that it says.

    Raises EnoughError as soon as there are more problems than are told.
    """
    _Checks(document).definition(definition)


class _Checks:
    """Finds the problems; a block is checked like a definition of its own."""

    def __init__(self, document: Written) -> None:
        self._document = document

    def definition(self, definition: Definition) -> None:
        inputs = of_schema(definition.inputs) if definition.inputs else ANY
        main = _Section(self, "tasks", definition.tasks, inputs)
        main.check()
        last = _Section(self, "finally", definition.finally_, inputs, main.types)
        last.check()
        if definition.outputs:
            template_type(definition.outputs, "outputs", main.names_at_the_end(), self.add)
        names = Names(known=main.types.keys(), inputs=inputs, before=_NOT_YET)
        template_type(definition.fairness_key, "fairness_key", names, self.add)
        if definition.concurrency:
            template_type(definition.concurrency.key, "concurrency.key", names, self.add)

    def block(self, block: Block, path: str, inputs: Type) -> Type:
        """Check a block; return the type of what it gives."""
        section = _Section(self, below(path, "tasks"), block.tasks, inputs)
        section.check()
        if block.outputs is None:
            return ANY
        names = section.names_at_the_end()
        return template_type(block.outputs, below(path, "outputs"), names, self.add)

    def add(self, path: str, message: str) -> None:
        self._document.add(message, path)

    def is_list(self, path: str) -> bool:
        """Tell whether the author wrote a list there, rather than its one element."""
        return self._document.is_there(f"{path}[0]")


class _Section:
    """Tasks that may need each other: those of a definition, of a block, of `finally`."""

    def __init__(
        self,
        checks: _Checks,
        path: str,
        tasks: tuple[TaskSpec, ...],
        inputs: Type,
        outer: _Types | None = None,
    ) -> None:
        self._checks = checks
        self._path = path
        self._tasks = {task.key: task for task in tasks}
        self._inputs = inputs
        self._outer = outer or {}
        # A task that waits for itself is told as that, not as a cycle.
        self._needs = {
            task.key: tuple(need for need in task.needs if need != task.key) for task in tasks
        }
        self.types: dict[str, Type | None] = dict.fromkeys(self._needs)
        self._known = self._needs.keys() | self._outer.keys() if outer else self._needs.keys()

    def check(self) -> None:
        """Check every task, in an order in which what they read is known."""
        for key in self._needs.keys() & self._outer.keys():
            self._add(key, "", f"there is a task `{key}` in `tasks` already")
        for task in self._tasks.values():
            self._wrong_needs(task)
        are_cycles = False
        for cycle in cycles(self._needs):
            are_cycles = True
            # The cycle is told where its first task names the last one.
            self._add(cycle[0], "needs", f"the tasks wait for each other: {' -> '.join(cycle)}")
        # In a cycle nothing comes before anything, and that is said already.
        upstream = None if are_cycles else Upstream(self._needs)
        for key in upstream.order if upstream else self._tasks:
            before = _Before(self.types, upstream, key, self._outer) if upstream else self._all()
            self.types[key] = self._task(self._tasks[key], before)

    def names_at_the_end(self) -> Names:
        """Return what may be read when all tasks have ended."""
        return Names(self._all(), self._known, self._inputs)

    def _all(self) -> _Types:
        return {**self._outer, **self.types} if self._outer else self.types

    def _wrong_needs(self, task: TaskSpec) -> None:
        is_list = self._checks.is_list(below(below(self._path, task.key), "needs"))
        seen: set[str] = set()
        for place, need in enumerate(task.needs):
            where = f"needs[{place}]" if is_list else "needs"
            if need == task.key:
                self._add(task.key, where, "a task cannot wait for itself")
            elif need in self._outer:
                self._add(
                    task.key, where, f"all of `tasks` have ended here; `{need}` is not needed"
                )
            elif need not in self._needs:
                message = f"there is no task `{need}`{meant(need, self._needs)}"
                self._add(task.key, where, message)
            elif need in seen:
                self._add(task.key, where, f"`{need}` stands twice")
            seen.add(need)

    def _add(self, key: str, where: str, message: str) -> None:
        path = below(self._path, key)
        self._checks.add(f"{path}.{where}" if where else path, message)

    def _task(self, task: TaskSpec, before: _Types) -> Type:
        names = Names(before, self._known, self._inputs)
        return _Task(self._checks, task, below(self._path, task.key), names).type()


class _Task:
    """The expressions of one task: each place has names of its own."""

    def __init__(self, checks: _Checks, task: TaskSpec, path: str, names: Names) -> None:
        self._checks = checks
        self._task = task
        self._path = path
        self._names = names

    def type(self) -> Type:
        """Check all; return the type of `tasks.<key>`."""
        task, flow = self._task, self._task.flow
        if flow.condition:
            self._wanted(flow.condition, "if", self._names, BOOL)
        item = self._items()
        each = {"item": item, "index": INT} if flow.for_each is not None else {}
        result = of_schema(task.returns) if task.returns else ANY
        loop = {"iteration": INT, "previous": result} if flow.repeat else {}
        secrets = {"secrets": SECRETS} if task.uses == "agent" else {}
        given = self._template(task.inputs, "with", {**each, **loop, **secrets})
        made = self._made(given)
        if not task.returns and not flow.catch:
            result = made
        self._rest({**each, "result": result}, each, loop)
        # The outputs of a task with items are made once, of the list of their results.
        result = result if flow.for_each is None else list_of(result)
        outputs = self._template(task.outputs or {}, "outputs", {"result": result})
        return task_type(result, outputs.fields or {})

    def _made(self, given: Type) -> Type:
        """Return what the engine makes itself; a block is checked for it."""
        task = self._task
        if task.block:
            inputs = given if task.inputs else self._names.inputs
            return self._checks.block(task.block, self._path, inputs)
        return _DECIDED if task.uses == "approval" else ANY

    def _items(self) -> Type:
        """Return the type of an item."""
        over = self._task.flow.for_each
        if over is None:
            return ANY
        if isinstance(over, str):
            return self._wanted(over, "for_each", self._names, list_of(ANY)).element()
        return self._template(over, "for_each", {}).element()

    def _rest(
        self, done: Mapping[str, Type], each: Mapping[str, Type], loop: Mapping[str, Type]
    ) -> None:
        flow = self._task.flow
        if flow.repeat and flow.repeat.until:
            names = self._with({**done, **loop})
            self._wanted(flow.repeat.until, "repeat.until", names, BOOL)
        if flow.catch:
            caught = {**each, "error": _ERROR, "secrets": SECRETS}
            self._template(flow.catch.inputs, "catch.with", caught)
            self._template(flow.catch.result, "catch.result", {**each, "error": _ERROR})
        if flow.undo:
            self._template(flow.undo.inputs, "undo.with", {**done, "secrets": SECRETS})
        for key, limit in (("concurrency", flow.concurrency), ("rate_limit", flow.rate_limit)):
            if limit:
                self._template(limit.key, f"{key}.key", each)
        if flow.sticky:
            self._template(flow.sticky, "sticky", {**each, **loop})

    def _template(self, template: object, where: str, own: Mapping[str, Type]) -> Type:
        path = f"{self._path}.{where}"
        return template_type(template, path, self._with(own), self._checks.add)

    def _wanted(self, expression: str, where: str, names: Names, wanted: Type) -> Type:
        path = f"{self._path}.{where}"
        type_ = expression_type(expression, path, names, self._checks.add)
        if not type_.may_be(*(wanted.kinds or ())):
            self._checks.add(path, f"must be {wanted}, this is {type_}")
        return type_

    def _with(self, own: Mapping[str, Type]) -> Names:
        return replace(self._names, own=own) if own else self._names


class _Before(Mapping[str, Type | None]):
    """The tasks before one, without a dict for each task."""

    def __init__(self, types: _Types, upstream: Upstream, key: str, outer: _Types) -> None:
        self._types = types
        self._upstream = upstream
        self._key = key
        self._outer = outer

    def __getitem__(self, other: str) -> Type | None:
        if other in self._outer:
            return self._outer[other]
        if not self._upstream.has(self._key, other):
            raise KeyError(other)
        return self._types[other]

    def __iter__(self) -> Iterator[str]:
        yield from self._outer
        yield from (other for other in self._types if self._upstream.has(self._key, other))

    def __len__(self) -> int:
        return sum(1 for _ in self)
