"""What an agent may be, and how that changes."""

from __future__ import annotations

from opscore.states import Machine

#: initializing: its process starts; active: ready (busy while it has running tasks);
#: error: given up after a crash loop, an operator or a new desired state wakes it.
AGENT = Machine(
    {
        "initializing": frozenset(
            {"active", "unresponsive", "restarting", "error", "draining", "terminated"}
        ),
        "active": frozenset({"unresponsive", "draining", "restarting", "error", "terminated"}),
        "draining": frozenset({"unresponsive", "restarting", "terminated"}),
        "restarting": frozenset({"initializing", "error", "terminated"}),
        "unresponsive": frozenset({"active", "restarting", "error", "terminated"}),
        "error": frozenset({"initializing", "restarting", "terminated"}),
        "terminated": frozenset({"initializing"}),
    }
)
KINDS = ("worker", "command", "process", "remote", "http")
#: Kinds that a host's supervisor starts.
SUPERVISED = ("worker", "command", "process")
