"""Definitions as pictures: a list by levels for terminals, a flowchart for Mermaid."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tasks.flow import Flow
from workflows.ancestry import Upstream
from workflows.spec import Definition, TaskSpec

FORMATS = ("text", "mermaid")
_LONGEST = 60
#: What Mermaid gives a meaning inside a label, as its own entities.
_ENTITIES = str.maketrans({char: f"#{ord(char)};" for char in '"#&;<>`\\|[](){}*_~'})
_FRAMES = {
    "wait": ('(["', '"])'),
    "signal": ('>"', '"]'),
    "approval": ('{{"', '"}}'),
    "workflow": ('[["', '"]]'),
}


def draw(definition: Definition, notation: str = "text") -> str:
    """Return the graph of a definition; `notation` is one of FORMATS."""
    lines = _mermaid(definition) if notation == "mermaid" else _text(definition)
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------ text
def _text(definition: Definition) -> Iterator[str]:
    version = f" {definition.version}" if definition.version else ""
    yield f"{definition.name}{version}"
    yield from _levels(definition.tasks, "  ")
    if definition.finally_:
        yield "  finally"
        yield from _levels(definition.finally_, "    ")


def _levels(tasks: Sequence[TaskSpec], indent: str) -> Iterator[str]:
    """Write the tasks of each level: those that need only tasks of the levels above."""
    level: dict[str, int] = {}
    needs = {task.key: task.needs for task in tasks}
    for key in Upstream(needs).order:
        level[key] = 1 + max((level[need] for need in needs[key]), default=0)
    width = max(len(task.key) for task in tasks)
    last = 0
    for task in sorted(tasks, key=lambda task: level[task.key]):
        number = f"{level[task.key]}" if level[task.key] != last else ""
        last = level[task.key]
        yield f"{indent}{number:>3}  {task.key:<{width}}  {'  '.join(_facts(task))}".rstrip()
        if task.block:
            yield from _levels(task.block.tasks, indent + "      ")


def _facts(task: TaskSpec) -> Iterator[str]:
    yield f"[{_who(task)}]"
    if task.needs:
        join = "" if task.join == "all_success" else f"{task.join} of "
        yield f"<- {join}{', '.join(task.needs)}"
    yield from _marks(task.flow)


def _who(task: TaskSpec) -> str:
    match task.executor:
        case "agent":
            return " ".join([task.capability, *(f"+{label}" for label in task.requires)])
        case "wait":
            until, duration = (task.inputs.get(key) for key in ("until", "duration"))
            return f"wait until {_brief(until)}" if until else f"wait {_duration(duration)}"
        case "signal":
            return f"signal {_brief(task.inputs.get('name', task.key))}"
        case "approval":
            return f"approval by {_brief(task.inputs.get('role', 'anyone'))}"
    return task.uses


def _marks(flow: Flow) -> Iterator[str]:
    if flow.condition:
        yield f"if {_brief(flow.condition)}"
    if flow.for_each is not None:
        over = flow.for_each
        what = f"{len(over)} items" if isinstance(over, list) else _brief(str(over))
        yield f"for each of {what}" + (
            f", {flow.max_parallel} at once" if flow.max_parallel else ""
        )
    if flow.repeat:
        until = f" until {_brief(flow.repeat.until)}" if flow.repeat.until else ""
        yield f"repeat{until}, at most {flow.repeat.max}"
    if flow.catch:
        yield f"catch {', '.join(flow.catch.on) or 'all'}"
    if flow.undo:
        yield f"undo by {flow.undo.capability}"


def _duration(value: float | str | None) -> str:
    if not isinstance(value, float):
        return _brief(str(value))
    for unit, seconds in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if value >= seconds and value % seconds == 0:
            return f"{value / seconds:g}{unit}"
    return f"{value:g}s"


def _brief(text: str) -> str:
    whole = re.fullmatch(r"\s*\$\{\{(.*)\}\}\s*", text, re.DOTALL)
    line = " ".join((whole[1] if whole else text).split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


# ------------------------------------------------------------ Mermaid
def _mermaid(definition: Definition) -> Iterator[str]:
    yield "flowchart TD"
    yield from _flowchart(definition.tasks, "t", "  ")
    if definition.finally_:
        yield '  subgraph last["finally"]'
        yield from _flowchart(definition.finally_, "f", "    ")
        yield "  end"


def _flowchart(tasks: Sequence[TaskSpec], prefix: str, indent: str) -> Iterator[str]:
    # Keys may be words of Mermaid (`end`), numbers may not.
    names = {task.key: f"{prefix}{number}" for number, task in enumerate(tasks)}
    for task in tasks:
        yield from _shape(task, names[task.key], indent)
    for task in tasks:
        arrow = "-.->" if task.flow.condition else "-->"
        for need in task.needs:
            yield f"{indent}{names[need]} {arrow} {names[task.key]}"


def _shape(task: TaskSpec, name: str, indent: str) -> Iterator[str]:
    join = [] if task.join == "all_success" else [f"join: {task.join}"]
    facts = [task.key, *([] if task.block else [_who(task)]), *join, *_marks(task.flow)]
    label = "<br/>".join(fact.translate(_ENTITIES) for fact in facts)
    if task.block:
        yield f'{indent}subgraph {name}["{label}"]'
        yield from _flowchart(task.block.tasks, f"{name}x", indent + "  ")
        yield f"{indent}end"
        return
    start, end = _FRAMES.get(task.executor, ('["', '"]'))
    yield f"{indent}{name}{start}{label}{end}"
