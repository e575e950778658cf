"""Does the platform answer? Asked through its own API, as any client would."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from opscore.documents import read
from opscore.errors import OpsCoreError

_TIMEOUT_S = 5.0
_READY = ("active", "busy", "draining")
_WORDS = ("name", "host", "spec", "status", "reason", "desired")
# The answer of a proxy between this process and its own child is of no interest.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Seen:
    """An agent, as the API shows it."""

    name: str
    host: str
    spec: str
    status: str
    reason: str
    desired: str
    changed_at: datetime

    @classmethod
    def of(cls, agent: Mapping[str, Any]) -> Seen:
        """Read one agent of an answer."""
        words = {name: str(agent[name]) for name in _WORDS}
        return cls(**words, changed_at=datetime.fromisoformat(agent["changed_at"]))

    @property
    def is_ready(self) -> bool:
        """Whether it can take a task or is at one."""
        return self.status in _READY


class Probe:
    """Asks one web server on this host."""

    def __init__(self, url: str, api_key: str = "") -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def healthy(self) -> bool:
        """Tell whether `/health` answers 200."""
        return self._get("/health") is not None

    def agents(self) -> list[Seen]:
        """Return the project's agents; none when the API does not answer."""
        found: list[Seen] = []
        path: str | None = "/api/v1/agents?limit=200"
        while path:
            page = self._get(path) or {}
            found += [Seen.of(agent) for agent in page.get("results", ())]
            path = page.get("next")
        return found

    def set_sizes(self, host: str) -> dict[str, int]:
        """Return the specs of a host whose number of agents is not what its file says."""
        specs = (self._get(f"/api/v1/hosts/{quote(host, safe='')}") or {}).get("specs", ())
        sizes = {
            spec["name"]: spec["scaled_replicas"]
            if spec["set_replicas"] is None
            else spec["set_replicas"]
            for spec in specs
        }
        return {name: size for name, size in sizes.items() if size is not None}

    def _get(self, path: str) -> dict[str, Any] | None:
        request = urllib.request.Request(self._url + path, headers=self._headers)  # noqa: S310 - our own URL
        try:
            with _direct.open(request, timeout=_TIMEOUT_S) as answer:
                found = json.load(answer)
        except (urllib.error.URLError, OSError, ValueError):
            return None
        return found if isinstance(found, dict) else {}


def wanted_agents(agents_file: Path, set_sizes: Mapping[str, int]) -> frozenset[str]:
    """Return the agents that a host should have: `set_sizes` goes before what its file says.

    A wrong file is its supervisor's news.
    """
    try:
        specs = read(agents_file.read_bytes()).data["agents"].items()
        counts = {name: set_sizes.get(name, _count_of(spec)) for name, spec in specs}
    except (OSError, OpsCoreError, AttributeError, KeyError, TypeError, ValueError):
        return frozenset()
    return frozenset(
        f"{spec}-{number}" for spec, count in counts.items() for number in range(1, count + 1)
    )


def _count_of(spec: Mapping[str, Any]) -> int:
    return int(spec["autoscale"]["min"] if "autoscale" in spec else spec.get("replicas", 1))
