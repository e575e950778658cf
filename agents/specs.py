"""A host's file of agent specs: what it offers. Command lines and modules come from here only."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

from opscore.documents import Document, read
from opscore.errors import InvalidError, Problem
from opscore.texts import below

#: The platform's own agents are called so on every host.
RESERVED = "platform"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_WORD_LENGTH = 80


@dataclass(frozen=True)
class Spec:
    """One kind of agent that this host can start."""

    name: str
    kind: str
    capabilities: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    replicas: int = 1
    """How many the host starts by itself; 0: it only offers them to the API."""
    handlers: str = ""
    """Kind `worker`: the Python module that registers its handlers."""
    command: tuple[str, ...] = ()
    """Kind `command`: program and arguments, run once for each task."""
    cwd: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float | None = None

    def offered(self) -> dict[str, Any]:
        """Return what the database may know of it: no command line, no module."""
        return {
            "kind": self.kind,
            "capabilities": list(self.capabilities),
            "labels": list(self.labels),
        }


def load(path: Path) -> dict[str, Spec]:
    """Read the file; raises InvalidError with every problem, each with path and line."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InvalidError(
            f"The agent specs {path} cannot be read ({error.strerror}). "
            "Set OPSCORE_AGENTS_FILE to a file of agent specs."
        ) from None
    return parse(text, base=path.resolve().parent, name=str(path))


def parse(text: str | bytes, *, base: Path, name: str = "agents file") -> dict[str, Spec]:
    """Turn the text into specs by name; a relative `cwd` is taken from `base`."""
    try:
        agents = _agents(text, base)
    except InvalidError as error:
        shown = "\n".join(f"  {problem}" for problem in error.problems)
        message = f"The agent specs in {name} are not valid:\n{shown}"
        raise InvalidError(message, error.problems) from None
    return {key: _spec(key, body, base) for key, body in agents.items()}


def _agents(text: str | bytes, base: Path) -> dict[str, dict[str, Any]]:
    document = read(text, expected="a mapping with the key `agents`")
    if problems := [*document.problems, *_Checks(document, base).problems()]:
        raise InvalidError(problems=problems)
    agents: dict[str, dict[str, Any]] = document.data["agents"]
    return agents


def _spec(name: str, body: Mapping[str, Any], base: Path) -> Spec:
    said: dict[str, Any] = {"kind": "worker"}
    for key, value in body.items():
        said[key] = tuple(value) if isinstance(value, list) else value
    if said["kind"] == "command":
        said["cwd"] = str((base / said.get("cwd", ".")).resolve())
        said["timeout_s"] = said.pop("timeout", None)
    return Spec(name=name, **said)


#: Value -> what is wrong with it: where below the key (`[0]`), and a message.
_Rule = Callable[[Any], Iterator[tuple[str, str]]]


def _keys(base: Path) -> dict[str, dict[str, _Rule]]:
    """Return the keys of each kind of spec, and what they may hold."""
    every: dict[str, _Rule] = {
        "kind": lambda _: iter(()),
        "capabilities": _words,
        "labels": _words,
        "replicas": _rule("a whole number >= 0", _is_count),
    }
    module = "a Python module's name, as examples.repo_review.history,"
    return {
        "worker": {**every, "handlers": _rule(module, _is_module)},
        "command": {
            **every,
            "command": _rule("a list of texts, the program first,", _is_command),
            "cwd": lambda value: _folder(value, base),
            "env": _rule("a mapping of texts", _is_env),
            "timeout": _rule("a number of seconds above 0", _is_duration),
        },
    }


_MISSING = {
    "capabilities": "what can this agent do?",
    "handlers": "the Python module with its handlers",
    "command": "program and arguments, as a list",
}


class _Checks:
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

    def _unknown_keys(
        self, body: Mapping[str, Any], known: Collection[str], *steps: str
    ) -> Iterator[Problem]:
        for key in body:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
                yield self._problem(f"unknown key {key!r}; {hint}", *steps, key)

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


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1000


def _is_duration(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


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
