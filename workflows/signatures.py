"""Celery canvases read as data: signatures are dicts, and a graph of tasks comes out."""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from opscore.errors import InvalidError, Problem, TooLargeError
from opscore.texts import is_storable
from tasks.cel_tree import written
from tasks.expressions import meant
from tasks.graph import Graph, Node
from tasks.retries import RetryPolicy

MAX_TASKS = 10_000
#: Groups inside each other; a chain may be as long as there may be tasks.
MAX_DEPTH = 20
#: JSON of one task's own arguments. Large things are passed by name: a path, a key.
MAX_ARGS_BYTES = 256 * 1024
#: JSON of all arguments together, references to results included.
MAX_BYTES = 4 * 1024 * 1024
_MAX_NESTING = 50
_MAX_BITS = 1024
_MAX_NAME = 80

# What Celery itself writes into the options of a canvas that was frozen.
_KEPT_BY_CELERY = {
    "task_id", "root_id", "parent_id", "group_id", "group_index", "reply_to", "chord",
}  # fmt: skip
_LATER = "a task begins when what it needs is there; use `uses: wait` in a workflow"
_CALLBACK = "make it a step: chain(task, callback)"
_INSTEAD = {
    "link": _CALLBACK,
    "link_error": "the run's error says what failed, at its end",
    "countdown": _LATER,
    "eta": _LATER,
    "expires": _LATER,
    "queue": "tasks go to agents that have the capability, which is the task's name",
    "soft_time_limit": "use time_limit, in seconds",
}
_BUILT_IN = {
    "celery.map": "write group(task.s(item) for item in items)",
    "celery.starmap": "write group(task.s(*item) for item in items)",
    "celery.chunks": "write group(task.s(*item) for item in items)",
}


@dataclass(frozen=True, slots=True)
class Traits:
    """What the Celery task itself says about how it is run."""

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout_s: float | None = None


def graph_of(
    canvas: Any, *, known: Collection[str], traits: Callable[[str], Traits] = lambda name: Traits()
) -> Graph:
    """Return the graph that a canvas means; its output `result` is what the canvas returns.

    `known` are the names of tasks that somebody is able to do. Raises InvalidError with every
    problem, each with its path in the canvas, and TooLargeError.
    """
    walk = _Walk(known, traits)
    end = walk.sequence(canvas, _Before(), "canvas", depth=0)
    if not walk.nodes and not walk.problems:
        walk.problems.append(Problem("holds no task", "canvas"))
    if walk.problems:
        raise InvalidError("The canvas cannot be run.", walk.problems)
    return Graph.of(walk.nodes, {"result": end.values[0]})


@dataclass(frozen=True, slots=True)
class _Before:
    """What stands before a signature: the values it is given, and the tasks it waits for."""

    values: tuple[Any, ...] = ()
    """Templates of its first arguments; results are referred to, never copied."""
    needs: tuple[str, ...] = ()


class _Walk:
    """One pass over a canvas. A chain is a loop, only groups are recursion."""

    def __init__(self, known: Collection[str], traits: Callable[[str], Traits]) -> None:
        self.nodes: list[Node] = []
        self.problems: list[Problem] = []
        self._known = known
        self._traits = traits
        self._bytes = 0

    def sequence(self, canvas: Any, before: _Before, path: str, depth: int) -> _Before:
        """Read a signature with all that follows in it; return what stands before the next."""
        todo = deque([(canvas, path)])
        while todo:
            signature, path = todo.popleft()
            kind = self._kind(signature, path)
            if kind == "task":
                before = self._task(signature, before, path)
            elif kind:
                before = self._entered(signature, before, path)
            if kind == "group":
                # Celery leaves an empty group in a chain out.
                if _tasks(signature) or not (before.needs or todo):
                    before = self._group(signature, before, path, depth)
            elif kind == "chord":
                header, body = signature["kwargs"]["header"], signature["kwargs"]["body"]
                before = self._group(_as_group(header), before, f"{path}.header", depth)
                todo.appendleft((body, f"{path}.body"))
            elif kind == "chain":
                todo.extendleft(reversed(list(_placed(_tasks(signature), path))))
        return before

    def _kind(self, signature: Any, path: str) -> str:
        """Return chain, group, chord or task; '' for what is no signature, which is a problem."""
        if not isinstance(signature, Mapping) or not isinstance(signature.get("task"), str):
            self._wrong(f"a Celery signature is expected, not {_short(signature)}", path)
            return ""
        name = signature["task"]
        if name in _BUILT_IN:
            self._wrong(f"{name} is not supported; {_BUILT_IN[name]}", path)
            return ""
        return {"celery.chain": "chain", "celery.group": "group", "celery.chord": "chord"}.get(
            name, "task"
        )

    def _entered(self, signature: Mapping[str, Any], before: _Before, path: str) -> _Before:
        """Return what stands before the first task of a chain, group or chord."""
        self._options(signature, path, allowed=())
        partial = set(signature.get("kwargs") or {}) - {"tasks", "header", "body", "kwargs"}
        if partial or (signature.get("kwargs") or {}).get("kwargs"):
            self._wrong("keyword arguments belong to its tasks: task.s(name=value)", path)
        args = tuple(self._templates(signature.get("args") or (), f"{path}.args"))
        given = () if signature.get("immutable") else before.values
        return _Before(given + args, before.needs)

    def _group(self, group: Any, before: _Before, path: str, depth: int) -> _Before:
        if depth >= MAX_DEPTH:
            self._wrong(f"groups stand inside each other more than {MAX_DEPTH} deep", path)
            return before
        ends = [
            self.sequence(task, start, place, depth + 1)
            for task, start, place in self._members(group, before, path, depth)
        ]
        needs = tuple(dict.fromkeys(key for end in ends for key in end.needs))
        return _Before(([end.values[0] for end in ends if end.values],), needs or before.needs)

    def _members(
        self, group: Any, before: _Before, path: str, depth: int
    ) -> Iterator[tuple[Any, _Before, str]]:
        """Yield a group's tasks; those of a group in a group count as its own, as in Celery."""
        for task, place in _placed(_tasks(group), path):
            inner = isinstance(task, Mapping) and task.get("task") == "celery.group"
            if inner and depth < MAX_DEPTH:
                yield from self._members(task, self._entered(task, before, place), place, depth + 1)
            else:
                yield task, before, place

    def _task(self, signature: Mapping[str, Any], before: _Before, path: str) -> _Before:
        if len(self.nodes) >= MAX_TASKS:
            raise TooLargeError(f"A canvas may hold {MAX_TASKS} tasks; this one holds more.")
        name = signature["task"]
        self._check_name(name, path)
        options = self._options(signature, path, allowed=("priority", "time_limit"))
        inputs = self._inputs(signature, before, path)
        key = f"{re.sub(r'[^A-Za-z0-9_]', '_', name.rpartition('.')[2])[:60]}-{len(self.nodes) + 1}"
        traits = self._traits(name)
        timeout_s = options.get("time_limit", traits.timeout_s)
        self.nodes.append(
            Node(
                key=key,
                capability=name,
                needs=before.needs,
                inputs=inputs,
                retry=traits.retry,
                timeout_s=None if timeout_s is None else float(timeout_s),
                priority=options.get("priority"),
            )
        )
        return _Before(("${{ " + written(("tasks", key, "result")) + " }}",), (key,))

    def _check_name(self, name: str, path: str) -> None:
        if len(name) > _MAX_NAME:
            message = f"the name {name[:20]}… has more than {_MAX_NAME} characters"
            self._wrong(f'{message}; say @shared_task(name="…")', path)
        elif name not in self._known:
            message = f"nobody is able to do `{name}`{meant(name, self._known)}"
            self._wrong(f"{message} (is it @durable, and a capability of an agent?)", path)

    def _inputs(self, signature: Mapping[str, Any], before: _Before, path: str) -> dict[str, Any]:
        args, kwargs = signature.get("args") or (), signature.get("kwargs") or {}
        own = {
            "args": self._templates(args, f"{path}.args"),
            "kwargs": self._template(dict(kwargs), f"{path}.kwargs", 0),
        }
        size = _size(own)
        if size > MAX_ARGS_BYTES:
            message = f"the arguments have {size} bytes, more than {MAX_ARGS_BYTES}"
            self._wrong(f"{message}; pass the name of the data: a path, a key, an id", path)
        given = [] if signature.get("immutable") else list(before.values)
        self._bytes += size + _size(given)
        if self._bytes > MAX_BYTES:
            raise TooLargeError(
                f"The arguments of this canvas have more than {MAX_BYTES >> 20} MiB together. "
                "Pass names of data instead of data, and put one task between two wide groups."
            )
        return {"args": given + own["args"], "kwargs": own["kwargs"]}

    def _options(
        self, signature: Mapping[str, Any], path: str, allowed: Collection[str]
    ) -> dict[str, Any]:
        options = {
            name: value
            for name, value in (signature.get("options") or {}).items()
            if name not in _KEPT_BY_CELERY and value not in (None, [], (), {})
        }
        for name, value in options.items():
            if name not in allowed:
                hint = _INSTEAD.get(name, "allowed: priority and time_limit, of a task")
                self._wrong(f"the option {name} is not supported; {hint}", path)
            elif not _is_number(value) or not (0 <= value <= 9 or name != "priority"):
                self._wrong(f"the option {name} cannot be {_short(value)}", path)
        return options

    def _templates(self, values: Any, path: str) -> list[Any]:
        if not isinstance(values, list | tuple):
            self._wrong(f"a list of arguments is expected, not {_short(values)}", path)
            return []
        return [self._template(each, f"{path}[{at}]", 0) for at, each in enumerate(values)]

    def _template(self, value: Any, path: str, depth: int) -> Any:
        """Return a JSON value as a template that renders to itself."""
        if depth > _MAX_NESTING:
            self._wrong(f"is nested more than {_MAX_NESTING} deep", path)
        elif isinstance(value, Mapping):
            return {
                self._key(key, path): self._template(each, f"{path}.{key}", depth + 1)
                for key, each in value.items()
            }
        elif isinstance(value, list | tuple):
            return [
                self._template(each, f"{path}[{at}]", depth + 1) for at, each in enumerate(value)
            ]
        elif problem := _unfit(value):
            self._wrong(problem, path)
        else:
            return value.replace("${{", "$${{") if isinstance(value, str) else value
        return None

    def _key(self, key: Any, path: str) -> str:
        if not isinstance(key, str) or not is_storable(key):
            self._wrong(f"the key {_short(key)} is no text that JSON can hold", path)
        return str(key)

    def _wrong(self, message: str, path: str) -> None:
        self.problems.append(Problem(message, path))


def _tasks(signature: Mapping[str, Any]) -> Sequence[Any]:
    """Return the tasks of a chain or group; a generator is read as far as the limit goes."""
    tasks = (signature.get("kwargs") or {}).get("tasks") or ()
    if isinstance(tasks, list | tuple):
        return tasks
    return list(islice(tasks, MAX_TASKS + 1))


def _placed(tasks: Sequence[Any], path: str) -> Iterator[tuple[Any, str]]:
    return ((task, f"{path}.tasks[{place}]") for place, task in enumerate(tasks))


def _as_group(header: Any) -> Mapping[str, Any]:
    if isinstance(header, Mapping) and header.get("task") == "celery.group":
        return header
    tasks = [header] if isinstance(header, Mapping) else header
    return {"task": "celery.group", "kwargs": {"tasks": tasks}}


def _unfit(value: Any) -> str:
    """Say why a plain value cannot be kept as JSON; '' when it can."""
    if isinstance(value, str):
        return "" if is_storable(value) else "the text holds a NUL or half a surrogate pair"
    if isinstance(value, float) and not math.isfinite(value):
        return "the number is infinite or undefined, which JSON cannot say"
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        return f"the number has more than {_MAX_BITS} bits"
    if value is None or isinstance(value, int | float):
        return ""
    return f"a {type(value).__name__} is no JSON; pass a text, a number or a list"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
