"""What may stand in a host's file of agent specs: every problem, each with path and line."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

from opscore.documents import Document
from opscore.durations import parse_duration
from opscore.errors import Problem
from opscore.sizes import parse_size, shown_size
from opscore.texts import below

#: The platform's own agents are called so on every host.
RESERVED = "platform"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_WORD_LENGTH = 80
#: With less, a program dies before its first line.
LEAST_MEMORY = 16 * 1024**2

#: Value -> what is wrong with it: where below the key (`[0]`), and a message.
_Rule = Callable[[Any], Iterator[tuple[str, str]]]


def _keys(base: Path) -> dict[str, dict[str, _Rule]]:
    """Return the keys of each kind of spec, and what they may hold."""
    every: dict[str, _Rule] = {
        "kind": lambda _: iter(()),
        "capabilities": _words,
        "labels": _words,
        "replicas": _rule("a whole number >= 0", _is_count),
        "max_replicas": _rule("a whole number from 1 to 1000", _is_positive),
        "autoscale": _autoscale,
        "recycle": _RECYCLE,
    }
    program: dict[str, _Rule] = {
        "command": _rule("a list of texts, the program first,", _is_command),
        "cwd": lambda value: _folder(value, base),
        "env": _rule("a mapping of texts", _is_env),
        "python": lambda value: _python(value, base),
        "limits": _mapping(**_LIMITS, cpu_time=_parsed(parse_duration)),
    }
    module = "a Python module's name, as examples.repo_review.history,"
    return {
        "worker": {
            **every,
            "handlers": _rule(module, _is_module),
            "limits": _mapping(**_LIMITS),
        },
        "command": {**every, **program, "timeout": _parsed(parse_duration)},
        "process": {
            **every,
            **program,
            "concurrency": _rule("a whole number from 1 to 1000", _is_positive),
            "start_timeout": _parsed(parse_duration),
        },
    }


_MISSING = {
    "capabilities": "what can this agent do?",
    "handlers": "the Python module with its handlers",
    "command": "program and arguments, as a list",
}


class Checks:
    """Walks the document once and finds every problem."""

    def __init__(self, document: Document, base: Path) -> None:
        self._document = document
        self._kinds = _keys(base)

    def problems(self) -> Iterator[Problem]:
        data = self._document.data
        yield from self._unknown_keys(data, ("agents",))
        agents = data.get("agents")
        if not isinstance(agents, dict):
            yield self._problem("a mapping of agent specs is expected", "agents")
            return
        for name, body in agents.items():
            if name == RESERVED:
                message = f"the name {RESERVED!r} is the platform's own"
                yield self._problem(message, "agents", name)
            elif not _NAME.fullmatch(name):
                rule = "letters, digits, '_' and '-', at most 60, a letter or digit first"
                yield self._problem(f"a spec's name is made of {rule}", "agents", name)
            yield from self._body(body, "agents", name)

    def _body(self, body: Any, *steps: str) -> Iterator[Problem]:
        if not isinstance(body, dict):
            yield self._problem("a mapping is expected: kind, capabilities, …", *steps)
            return
        kind = body.get("kind", "worker")
        rules = self._kinds.get(str(kind))
        if rules is None:
            close = difflib.get_close_matches(str(kind), self._kinds, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            message = f"unknown kind {kind!r}{hint} A host starts: {', '.join(self._kinds)}"
            yield self._problem(message, *steps, "kind")
            return
        yield from self._unknown_keys(body, rules, *steps)
        for key, rule in rules.items():
            if key in body:
                for place, message in rule(body[key]):
                    yield self._problem(message, *steps, key, place=place)
            elif key in _MISSING:
                yield self._problem(f"`{key}` is missing: {_MISSING[key]}", *steps)
        if "replicas" in body and "autoscale" in body:
            message = "say either `replicas` or `autoscale`: the latter begins with its min"
            yield self._problem(message, *steps, "replicas")
        yield from self._too_many(body, *steps)

    def _too_many(self, body: Mapping[str, Any], *steps: str) -> Iterator[Problem]:
        """Find pools that are larger than the file itself allows."""
        rule: Any = body.get("autoscale")
        most: Any = body.get("max_replicas")
        sizes: dict[tuple[str, ...], Any] = {
            ("replicas",): body.get("replicas"),
            ("autoscale", "max"): rule.get("max") if isinstance(rule, dict) else None,
        }
        for place, size in sizes.items():
            if _is_positive(most) and _is_positive(size) and size > most:
                message = f"{size} are more than max_replicas allows: {most}"
                yield self._problem(message, *steps, *place)

    def _unknown_keys(
        self, body: Mapping[str, Any], known: Collection[str], *steps: str
    ) -> Iterator[Problem]:
        for key in body:
            if key not in known:
                yield self._problem(_unknown(key, known), *steps, key)

    def _problem(self, message: str, *steps: str, place: str = "") -> Problem:
        line = self._document.line_of(reduce(below, steps, "") + place)
        return Problem(message, ".".join(steps) + place, line)


def _rule(expected: str, fits: Callable[[Any], bool]) -> _Rule:
    def wrong(value: Any) -> Iterator[tuple[str, str]]:
        if not fits(value):
            text = repr(value)
            shown = text if len(text) <= 60 else f"{text[:57]}…"
            yield "", f"{expected} is expected, not {shown}"

    return wrong


def _words(value: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(value, list):
        yield "", "a list of words is expected"
        return
    for place, word in enumerate(value):
        if not isinstance(word, str) or not 0 < len(word.strip()) <= _WORD_LENGTH:
            message = f"a word of 1 to {_WORD_LENGTH} characters is expected, not {word!r}"
            yield f"[{place}]", message


def _folder(value: Any, base: Path) -> Iterator[tuple[str, str]]:
    if not isinstance(value, str):
        yield from _rule("a folder", lambda _: False)(value)
    elif not (base / value).is_dir():
        yield "", f"there is no folder {str(base / value)!r}"


def _python(value: Any, base: Path) -> Iterator[tuple[str, str]]:
    if not isinstance(value, str):
        yield from _rule("a virtual environment or an interpreter", lambda _: False)(value)
    elif not os.access(programs_of(base / value) / "python", os.X_OK):
        yield "", f"there is no Python at {str(base / value)!r}: a virtual environment is expected"


def programs_of(place: Path) -> Path:
    """Return the folder of programs of a virtual environment, or of one of its interpreters."""
    # Not resolved: the interpreter of a virtual environment is a link to the one it was made of.
    return place.absolute() / "bin" if place.is_dir() else place.absolute().parent


def _mapping(**rules: _Rule) -> _Rule:
    def wrong(value: Any) -> Iterator[tuple[str, str]]:
        if not isinstance(value, dict) or not value:
            yield "", f"a mapping is expected with one or more of: {', '.join(rules)}"
            return
        for key, inner in value.items():
            if key not in rules:
                yield f".{key}", _unknown(key, rules)
                continue
            for place, message in rules[key](inner):
                yield f".{key}{place}", message

    return wrong


def _parsed(parse: Callable[[Any], Any]) -> _Rule:
    def wrong(value: Any) -> Iterator[tuple[str, str]]:
        try:
            parse(value)
        except ValueError as error:
            yield "", str(error)

    return wrong


def _memory(value: Any) -> Iterator[tuple[str, str]]:
    problems = list(_parsed(parse_size)(value))
    yield from problems
    if not problems and parse_size(value) < LEAST_MEMORY:
        yield "", f"at least {shown_size(LEAST_MEMORY)} are needed to start a program"


def _autoscale(value: Any) -> Iterator[tuple[str, str]]:
    found = list(_SCALE_KEYS(value))
    yield from found
    if found:
        return
    if missing := [key for key in ("min", "max", "queue_wait") if key not in value]:
        yield "", f"missing: {', '.join(missing)}"
    elif value["min"] > value["max"]:
        yield ".min", f"min is above max ({value['min']} > {value['max']})"


def _unknown(key: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(str(key), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"unknown key {key!r}; {hint}"


def _is_within(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_count(value: Any) -> bool:
    return _is_within(value, 0, 1000)


def _is_positive(value: Any) -> bool:
    return _is_within(value, 1, 1000)


def _is_module(value: Any) -> bool:
    return isinstance(value, str) and _MODULE.fullmatch(value) is not None


def _is_command(value: Any) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(word, str) for word in value)
        and value[:1] not in ([], [""])
    )


def _is_env(value: Any) -> bool:
    return isinstance(value, dict) and all(
        name and "=" not in name and isinstance(text, str) for name, text in value.items()
    )


_LIMITS: dict[str, _Rule] = {
    "memory": _memory,
    "open_files": _rule("a whole number from 16 to 1048576", lambda n: _is_within(n, 16, 2**20)),
}
_RECYCLE = _mapping(
    max_tasks=_rule("a whole number above 0", lambda n: _is_within(n, 1, 10**9)),
    max_memory=_parsed(parse_size),
    max_age=_parsed(parse_duration),
)
_SCALE_KEYS = _mapping(
    min=_rule("a whole number from 0 to 1000", _is_count),
    max=_rule("a whole number from 1 to 1000", _is_positive),
    queue_wait=_parsed(parse_duration),
)
