"""Expressions before they run: which names they may read, and what cannot be right in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from opscore.texts import below
from tasks.cel import ROOTS, CompileError, compiled
from tasks.cel_inference import infer
from tasks.cel_tree import Path, Tree, paths, start, written
from tasks.cel_types import ANY, STRING, Type, either, list_of, map_of, of_value, text_of
from tasks.cel_words import meant
from tasks.expressions import short
from tasks.placeholders import Code, bare, split
from tasks.states import TASK

Report = Callable[[str, str], None]
"""Gets the path of a string, and what is wrong with it."""
PARTS = ("result", "outputs", "status", "error")
_RUN = ("id", "workflow")
_ONLY = {
    "result": "`result` is known only in the outputs of a task, its `until` and its `undo`; "
    "use tasks.<key>.result",
    "item": "`item` is known only in a task with `for_each`, once its items are known; "
    "a block gets it by its `with`",
    "index": "`index` is known only in a task with `for_each`, once its items are known; "
    "a block gets it by its `with`",
    "iteration": "`iteration` is known only in the `with` and `until` of a task with `repeat`",
    "previous": "`previous` is known only in the `with` and `until` of a task with `repeat`",
    "error": "`error` is known only in `catch`; use tasks.<key>.error",
    "secrets": "`secrets` are known only in the `with` of tasks that agents do",
}


@dataclass(frozen=True)
class Names:
    """What the expressions of one place may read."""

    tasks: Mapping[str, Type | None] = field(default_factory=dict)
    """The tasks that come before, as `task_type` gives them; None: not known."""
    known: Collection[str] = ()
    """All tasks, to tell a wrong order from a misspelt key."""
    inputs: Type = ANY
    own: Mapping[str, Type] = field(default_factory=dict)
    """Of result, item, index, iteration, previous and error those that exist here."""
    before: str = ""
    """Why no task at all comes before."""


def task_type(result: Type, outputs: Mapping[str, Type]) -> Type:
    """Return what `tasks.<key>` is."""
    error = map_of({"type": STRING, "message": STRING})
    status = text_of(TASK.statuses)
    return map_of({"result": result, "outputs": map_of(outputs), "status": status, "error": error})


def template_type(template: Any, path: str, names: Names, report: Report) -> Type:
    """Return the type that a template renders to; `report` gets what is wrong in it."""
    if isinstance(template, str):
        return _string(template, path, names, report) if "${{" in template else STRING
    if isinstance(template, Mapping):
        return map_of(
            {
                key: template_type(value, below(path, key), names, report)
                for key, value in template.items()
            }
        )
    if isinstance(template, list | tuple):
        items = (
            template_type(value, f"{path}[{place}]", names, report)
            for place, value in enumerate(template)
        )
        return list_of(either(list(items)))
    return of_value(template)


def expression_type(expression: str, path: str, names: Names, report: Report) -> Type:
    """Return the type of one expression, written with or without `${{ }}`."""
    try:
        code = bare(expression)
    except ValueError as error:
        report(path, str(error))
        return ANY
    return _code(code, path, names, report)


def _string(text: str, path: str, names: Names, report: Report) -> Type:
    try:
        parts = split(text)
    except ValueError as error:
        report(path, str(error))
        return ANY
    types = [_code(part.text, path, names, report) for part in parts if isinstance(part, Code)]
    is_one = isinstance(parts[0], Code) and parts[1:] in {(), ("\n",)}
    return types[0] if is_one else STRING


def _code(text: str, path: str, names: Names, report: Report) -> Type:
    check = _Check(names, text)
    type_ = check.type()
    for message in check.messages:
        report(path, message)
    return type_


class _Check:
    """Of one expression."""

    def __init__(self, names: Names, text: str) -> None:
        self._names = names
        self._text = text
        self.messages: list[str] = []

    def type(self) -> Type:
        try:
            tree = compiled(self._text).tree
        except CompileError as error:
            self._refused(error)
            return ANY
        if self._paths(tree):
            return ANY
        return infer(tree, self._lookup, self._add)

    def _refused(self, error: CompileError) -> None:
        hyphens = list(self._hyphens())
        if hyphens:
            self.messages += hyphens
            return
        self.messages += (located(self._text, each.message, each.at) for each in error.complaints)
        if error.tree:
            self._paths(error.tree)

    def _hyphens(self) -> Iterator[str]:
        for found in re.finditer(r"\btasks\.(\w+(?:-\w+)+)", self._text):
            if found[1] in self._names.known:
                yield f'write tasks["{found[1]}"]: `-` means minus in `{short(self._text)}`'

    def _add(self, message: str, node: Tree) -> None:
        self.messages.append(located(self._text, message, start(node)))

    # -------------------------------------------------------- names
    def _paths(self, tree: Tree) -> bool:
        """Report the names that are not known here; return whether there are any."""
        found = [(self._path(path), node) for path, node in paths(tree)]
        for message, node in found:
            if message:
                self._add(message, node)
        return any(message for message, _ in found)

    def _path(self, path: Path) -> str | None:
        root, steps = path
        if root in _ONLY and root not in self._names.own:
            return _ONLY[root]
        if root == "secrets" and not steps:
            return "the secret must be written out, as in secrets.TOKEN"
        judge = {"tasks": self._task, "inputs": self._input, "run": self._run}.get(root)
        return judge(steps) if judge else None

    def _task(self, steps: tuple[str | int, ...]) -> str | None:
        if not steps:
            return "the task must be written out, as in tasks.review.result"
        key = str(steps[0])
        if key not in self._names.known:
            return f"there is no task `{key}`{meant(key, self._names.known)}"
        if self._names.before:
            return self._names.before
        if key not in self._names.tasks:
            return f"task `{key}` does not come before this one; add it to `needs`"
        return self._part(key, steps[1:])

    def _part(self, key: str, steps: tuple[str | int, ...]) -> str | None:
        name = written(("tasks", key))
        if not steps or steps[0] not in PARTS:
            wrong = f", not `{steps[0]}`{meant(str(steps[0]), PARTS)}" if steps else ""
            return f"a task has `{name}.result`, `outputs`, `status` and `error`{wrong}"
        task = self._names.tasks[key]
        declared = task and task.select("outputs")
        if steps[0] != "outputs" or not declared or declared.fields is None:
            return None
        if not declared.fields:
            return f"task `{key}` declares no outputs; use `{name}.result`"
        if len(steps) > 1 and steps[1] not in declared.fields:
            close = meant(str(steps[1]), declared.fields)
            return f"task `{key}` has no output `{steps[1]}`{close}"
        return None

    def _input(self, steps: tuple[str | int, ...]) -> str | None:
        inputs = self._names.inputs
        if not steps or inputs.select(str(steps[0])):
            return None
        return f"there is no input `{steps[0]}`{meant(str(steps[0]), inputs.fields or ())}"

    def _run(self, steps: tuple[str | int, ...]) -> str | None:
        if not steps or steps[0] in _RUN:
            return None
        return f"a run has `run.id` and `run.workflow`, not `{steps[0]}`"

    # -------------------------------------------------------- types
    def _lookup(self, path: Path) -> tuple[Type, int] | None:
        root, steps = path
        if root == "tasks":
            return self._names.tasks[str(steps[0])] or ANY, 1
        if root == "inputs":
            return self._names.inputs, 0
        if root == "run":
            return map_of(dict.fromkeys(_RUN, STRING)), 0
        return (self._names.own[root], 0) if root in self._names.own else None


def located(text: str, message: str, at: int | None) -> str:
    """Say where in an expression something is wrong."""
    if at is None:
        return f"{message} in `{short(text)}`"
    name = re.fullmatch(r"unknown name `((\w+).*)`", message)
    hint = ""
    if name:
        hint = meant(name[2], ROOTS) or "; expressions read inputs, tasks and run"
        at -= max(name[1].rfind("."), 0)  # the library points at the last dot
    return f"{message}{hint} (character {at + 1} of `{short(text)}`)"
