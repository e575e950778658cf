"""Log lines told to people: a sentence for what an operator should know, plain words else."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

_CONSOLE = re.compile(r"^\S+Z \[\w+\s*\] (?P<event>.*?)\s+\[[\w.]+\](?P<fields>.*)$")
_FIELD = re.compile(r"""(\w+)=('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\S+)""")
#: Fields that say where a line comes from, not what has happened.
_ORIGIN = frozenset({"level", "logger", "timestamp", "event", "agent_id", "request_id"})
_KNOWN = {
    "agent.broker_away": "agent {agent} cannot reach the broker and tries again: {error}",
    "agent.error": "agent {agent} was given up: {reason}",
    # Whether it starts again is decided later: one that was retired stays down.
    "agent.restarting": "agent {agent} has ended: {reason}",
    "agent.unresponsive": "agent {agent} does not answer: {reason}",
    "broker.lost_memory": "the broker has lost its memory; what waits is sent again",
    "hint.not_sent": "the broker was not told of {tasks} tasks, they are sent again: {error}",
    "supervisor.database_away": "the supervisor cannot reach the database: {error}",
    "supervisor.zygote_died": "the parent process of all agents died; they are started again",
    "task.lost": "task {key} has lost its agent and runs again",
}
_MAX_LENGTH = 400


def told(line: str) -> str:
    """Return a log line for people; one that is not of our own format comes back as it is."""
    try:
        event, fields = _read(line)
    except (LookupError, SyntaxError, TypeError, ValueError):
        return line[:_MAX_LENGTH]
    return sentence(event, fields)


def sentence(event: str, fields: Mapping[str, Any]) -> str:
    """Return an event in words; of a text with many lines the first and the last."""
    facts = {name: _short(str(value)) for name, value in fields.items() if name not in _ORIGIN}
    try:
        text = _KNOWN[event].format_map(facts)
    except KeyError:
        words = event.replace(".", " ").replace("_", " ")
        shown = ", ".join(f"{name}: {value}" for name, value in facts.items())
        text = f"{words} ({shown})" if shown else words
    return text[:_MAX_LENGTH]


def _read(line: str) -> tuple[str, dict[str, Any]]:
    if line.startswith("{"):
        fields = json.loads(line)
        return fields["event"], fields
    found = _CONSOLE.match(line)
    if found is None:
        raise ValueError(line)
    pairs = _FIELD.findall(found["fields"])
    return found["event"], {name: _unquoted(value) for name, value in pairs}


def _unquoted(text: str) -> str:
    return str(ast.literal_eval(text)) if text[0] in "'\"" else text


def _short(text: str) -> str:
    first, *others = [line for line in text.splitlines() if line.strip()] or [""]
    return f"{first} | {others[-1].strip()}" if others else first
