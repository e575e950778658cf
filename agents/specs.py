"""A host's file of agent specs: what it offers. Command lines and modules come from here only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agents.autoscale import Autoscale
from agents.limits import Limits
from agents.recycling import Recycle
from agents.spec_checks import RESERVED, Checks, programs_of
from opscore.documents import read
from opscore.durations import parse_duration
from opscore.errors import InvalidError
from opscore.sizes import parse_size

#: Seconds in which a program must have begun its session.
START_TIMEOUT_S = 30.0


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
    """Program and arguments. Kind `command` runs it once for each task, `process` keeps it running."""
    cwd: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    python: str = ""
    """Folder with the programs of a virtual environment; '': those of the platform's own Python."""
    timeout_s: float | None = None
    concurrency: int = 1
    """Kind `process`: how many tasks it should take at once."""
    start_timeout_s: float = START_TIMEOUT_S
    """Kind `process`: seconds in which it must have begun its session."""
    limits: Limits = field(default_factory=Limits)
    recycle: Recycle = field(default_factory=Recycle)
    autoscale: Autoscale | None = None
    max_replicas: int | None = None
    """The most that the API may ask for: the pool and those registered by name; None: any."""

    @property
    def slots(self) -> int:
        """How many tasks it does at once; other kinds than `process` have one slot."""
        return self.concurrency if self.kind == "process" else 1

    def offered(self) -> dict[str, Any]:
        """Return what the database may know of it: no command line, no module."""
        known = {
            "kind": self.kind,
            "capabilities": list(self.capabilities),
            "labels": list(self.labels),
            "replicas": self.replicas,
        }
        if self.kind == "process":
            known["concurrency"] = self.concurrency
        if self.max_replicas is not None:
            known["max_replicas"] = self.max_replicas
        if self.autoscale is not None:
            known["autoscale"] = asdict(self.autoscale)
        return known

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values; `of_dict` reads them."""
        return asdict(self)

    @classmethod
    def of_dict(cls, data: Mapping[str, Any]) -> Spec:
        """Return the spec that `as_dict` described."""
        autoscale = data["autoscale"]
        return cls(
            **{
                **data,
                "limits": Limits(**data["limits"]),
                "recycle": Recycle(**data["recycle"]),
                "autoscale": Autoscale(**autoscale) if autoscale else None,
            }
        )


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
    if problems := [*document.problems, *Checks(document, base).problems()]:
        raise InvalidError(problems=problems)
    agents: dict[str, dict[str, Any]] = document.data["agents"]
    return agents


def _spec(name: str, body: Mapping[str, Any], base: Path) -> Spec:
    said = {"kind": "worker"} | {key: _frozen(value) for key, value in body.items()}
    if said["kind"] != "worker":
        said["cwd"] = str((base / said.get("cwd", ".")).resolve())
    if "python" in said:
        said["python"] = str(programs_of(base / said["python"]))
    for key in said.keys() & {"timeout", "start_timeout"}:
        said[f"{key}_s"] = parse_duration(said.pop(key))
    for key in said.keys() & _RULES.keys():
        said[key] = _RULES[key](**_read(said[key]))
    if "autoscale" in said:
        said["replicas"] = said["autoscale"].min
    return Spec(name=name, **said)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


#: Keys that are mappings, and what they become.
_RULES: dict[str, Callable[..., Any]] = {
    "limits": Limits,
    "recycle": Recycle,
    "autoscale": Autoscale,
}
#: How the values of nested keys are read, and under which name they are kept.
_READERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "memory": ("memory", parse_size),
    "cpu_time": ("cpu_time_s", parse_duration),
    "max_memory": ("max_memory", parse_size),
    "max_age": ("max_age_s", parse_duration),
    "queue_wait": ("queue_wait_s", parse_duration),
}


def _read(body: Mapping[str, Any]) -> dict[str, Any]:
    read_as = {key: _READERS.get(key, (key, lambda value: value)) for key in body}
    return {name: parse(body[key]) for key, (name, parse) in read_as.items()}


__all__ = ["RESERVED", "Spec", "load", "parse"]
