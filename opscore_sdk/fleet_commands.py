"""The commands about agents, their hosts, routes and breakers, with their arguments."""

from __future__ import annotations

from opscore_sdk.grammar import Verbs, add_limit, duration


def _add_lists(commands: Verbs) -> None:
    agents = commands.add("agents", "verbs.agents", "show the agents that are not terminated")
    agents.add_argument("agent", nargs="?", metavar="NAME", help="all about one agent")
    agents.add_argument("--all", action="store_true", help="also those that are terminated")
    hosts = commands.add(
        "hosts", "agent_verbs.hosts", "show the hosts, what they offer and how many agents run"
    )
    hosts.add_argument("--forget", metavar="NAME", help="remove a host that does not live")
    for shown in (agents, hosts):
        add_limit(shown, 200)


def add_agents(commands: Verbs) -> None:
    """Add what concerns agents and hosts."""
    _add_lists(commands)
    for name, verb, purpose in (
        ("drain", "agent_verbs.drain", "have an agent finish what it has, then end"),
        ("stop", "agent_verbs.stop", "stop an agent"),
        ("restart", "agent_verbs.restart", "have an agent's process replaced after its task"),
    ):
        change = commands.add(name, verb, purpose)
        change.add_argument("agent", metavar="AGENT", help="name or id of an agent")
        if name == "stop":
            help_text = "at once; what it has runs elsewhere"
            change.add_argument("--force", action="store_true", help=help_text)

    one = commands.add("agent", "agent_verbs.agent", "register, pause or resume an agent")
    one.add_argument("change", choices=["register", "pause", "resume"])
    one.add_argument(
        "name", metavar="NAME", help="name of the agent, to pause or resume also its id"
    )
    one.add_argument("--spec", default="", help="one of a host's agents file, which starts it")
    for option, what in (("--capability", "what it offers"), ("--label", "what it is marked with")):
        help_text = f"{what}; may be given several times"
        one.add_argument(option, action="append", default=[], metavar="WORD", help=help_text)

    scale = commands.add("scale", "agent_verbs.scale", "have a host keep so many agents of a spec")
    scale.add_argument("spec", metavar="SPEC", help="name in the host's agents file")
    scale.add_argument(
        "replicas", metavar="N", help="how many; MIN..MAX: by a rule; `file`: as its file says"
    )
    scale.add_argument(
        "--queue-wait",
        type=float,
        default=5.0,
        metavar="S",
        help="MIN..MAX: more when a task waits so many seconds (default 5)",
    )
    scale.add_argument("--host", help="needed where several hosts offer it")


def add_routing(commands: Verbs) -> None:
    """Add how agents are chosen."""
    commands.add(
        "capabilities", "agent_verbs.capabilities", "show what agents offer, and its tasks"
    )
    route = commands.add("route", "agent_verbs.route", "show or choose how agents are chosen")
    route.add_argument("capability", metavar="CAPABILITY")
    route.add_argument("--strategy", help="least_loaded, round_robin, fastest, sticky or weighted")
    route.add_argument(
        "--weight",
        action="append",
        default=[],
        metavar="NAME=N",
        help="for weighted: agent or label, 1 to 100; may be given several times",
    )
    route.add_argument("--drop", action="store_true", help="whoever is free first takes a task")


def add_breakers(commands: Verbs) -> None:
    """Add the circuit breakers."""
    shown = commands.add("breakers", "breaker_verbs.breakers", "show the circuit breakers")
    add_limit(shown, 50)

    change = commands.add("breaker", "breaker_verbs.breaker", "open or close a circuit breaker")
    change.add_argument("change", choices=["open", "close"])
    change.add_argument("name", metavar="NAME", help="a resource, or with --agent an agent")
    change.add_argument("--agent", action="store_true", help="that of an agent")
    change.add_argument("--reason", default="", help="why; it is kept")
    change.add_argument(
        "--for",
        dest="for_s",
        type=duration,
        metavar="TIME",
        help="then a probe goes through: 90s, 10m, 1h; default: until it is closed by hand",
    )
