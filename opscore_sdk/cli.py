"""The `opscore` command: its arguments, and what becomes of errors. `verbs` does the work."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from opscore_sdk import agent_verbs, report, verbs, waiting
from opscore_sdk.client import Client
from opscore_sdk.errors import InvalidError, NotFoundError, OpsCoreError
from opscore_sdk.place import find_place
from opscore_sdk.statuses import DONE, INTERRUPTED, INVALID, MEANINGS, REFUSED, UsageError

Verb = Callable[[Client, argparse.Namespace], int]

#: Argument that names something by its id -> where such ids are to be seen.
_IDS = {
    "run": "opscore status --all shows the newest runs with their ids",
    "task": "opscore approvals shows the tasks that wait for a decision, with their ids",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status (see `statuses`); never raises."""
    options = _parser().parse_args(arguments)
    try:
        place = find_place()
        with Client(place.url, place.api_key) as client:
            verb: Verb = options.verb
            return verb(client, options)
    except (UsageError, InvalidError) as error:
        return _complain(error, options, INVALID)
    except NotFoundError as error:
        return _complain(_explained(error, options), options, REFUSED)
    except OpsCoreError as error:
        return _complain(error, options, REFUSED)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader, `head` for one, has what it wanted.
        sys.stderr.close()
        return DONE


def _complain(error: Exception, options: argparse.Namespace, status: int) -> int:
    if options.json:
        print(json.dumps(report.error_as_json(error)))
    problems = getattr(error, "problems", ())
    for problem in problems:
        report.say(f"{report.place_of(problem, getattr(options, 'file', None))}: {problem}")
    if not problems or isinstance(error, NotFoundError):
        report.say(f"opscore: {error}")
    for hint in getattr(error, "__notes__", ()):
        report.say(f"opscore: hint: {hint}")
    return status


def _explained(error: NotFoundError, options: argparse.Namespace) -> NotFoundError:
    """Return the error in the words of the command: which argument is no id, where ids are."""
    for kind, where in _IDS.items():
        named = getattr(options, kind, None)
        if named is not None and error.code:
            sentence = f"{named!r} is no id of a {kind}; {where}."
            body = {"code": error.code, "request_id": error.request_id}
            return NotFoundError(error.status, sentence, body)
    return error


class _Verbs:
    """Adds commands to the parser, each with `--json`."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._everywhere = argparse.ArgumentParser(add_help=False)
        self._everywhere.add_argument("--json", action="store_true", help="write JSON to stdout")
        self._adder = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(self, name: str, verb: Verb, purpose: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = self._adder.add_parser(
            name,
            parents=[self._everywhere],
            help=purpose,
            description=f"{purpose[0].upper()}{purpose[1:]}.",
            epilog=MEANINGS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.set_defaults(verb=verb)
        return parser

    def add_for_run(self, name: str, verb: Verb, purpose: str) -> argparse.ArgumentParser:
        parser = self.add(name, verb, purpose)
        parser.add_argument("run", metavar="RUN", help="id of a run")
        return parser


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="opscore",
        description="Run workflows on Ops-Core and see how they go.",
        epilog="OPSCORE_API_URL and OPSCORE_API_KEY say where the platform is; without them\n"
        f"var/opscore.env does, which `make up` writes.\n\n{MEANINGS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = _Verbs(parser)
    _add_workflows(commands)
    _add_runs(commands)
    _add_people(commands)
    _add_agents(commands)
    return parser


def _add_agents(commands: _Verbs) -> None:
    for name, verb, purpose in (
        ("agents", verbs.agents, "show the agents that are not terminated"),
        ("hosts", agent_verbs.hosts, "show the hosts, what they offer and how many agents run"),
    ):
        shown = commands.add(name, verb, purpose)
        shown.add_argument("--limit", type=int, default=200, help="how many (default 200)")
        if name == "agents":
            shown.add_argument("--all", action="store_true", help="also those that are terminated")

    logs = commands.add("logs", agent_verbs.logs, "show what an agent wrote, or a task's log")
    logs.add_argument("--agent", metavar="NAME", help="name or id of an agent")
    logs.add_argument("--task", metavar="ID", help="id of a task")
    logs.add_argument("--lines", type=int, default=100, help="how many (default 100)")

    for name, verb, purpose in (
        ("drain", agent_verbs.drain, "have an agent finish what it has, then end"),
        ("stop", agent_verbs.stop, "stop an agent"),
        ("restart", agent_verbs.restart, "have an agent's process replaced after its task"),
    ):
        change = commands.add(name, verb, purpose)
        change.add_argument("agent", metavar="AGENT", help="name or id of an agent")
        if name == "stop":
            help_text = "at once; what it has runs elsewhere"
            change.add_argument("--force", action="store_true", help=help_text)

    scale = commands.add("scale", agent_verbs.scale, "have a host keep so many agents of a spec")
    scale.add_argument("spec", metavar="SPEC", help="name in the host's agents file")
    scale.add_argument("replicas", metavar="N", help="how many; `file`: as the host's file says")
    scale.add_argument("--host", help="needed where several hosts offer it")


def _add_workflows(commands: _Verbs) -> None:
    run = commands.add("run", waiting.run, "upload a workflow and execute it")
    run.add_argument("file", type=Path, metavar="FILE", help="definition, YAML or .json")
    _add_input(run, "--input", "TEXT", "a text")
    _add_input(run, "--input-json", "JSON", "a number, a boolean, a list or an object")
    run.add_argument("--priority", type=int, metavar="0-9", help="9 is served first")
    _add_waiting(run)

    validate = commands.add(
        "validate", verbs.validate, "check a definition (asks the platform, which must be running)"
    )
    validate.add_argument("file", type=Path, metavar="FILE", help="definition, YAML or .json")

    graph = commands.add(
        "graph", verbs.graph, "show what needs what (asks the platform, which must be running)"
    )
    graph.add_argument("what", metavar="FILE|NAME", help="a definition, or a stored workflow")
    graph.add_argument("--format", choices=["text", "mermaid"], default="text")


def _add_runs(commands: _Verbs) -> None:
    status = commands.add("status", verbs.status, "show the newest runs, or one with its tasks")
    status.add_argument("run", nargs="?", metavar="RUN", help="id of a run")
    status.add_argument("--limit", type=int, default=20, help="how many runs (default 20)")
    status.add_argument(
        "--all", action="store_true", help="also runs that a task of another run started"
    )

    commands.add_for_run("pause", verbs.pause, "have a run start nothing new")
    commands.add_for_run("resume", verbs.resume, "have a paused run go on")
    commands.add_for_run("cancel", verbs.cancel, "cancel a run and all that it still does")

    again = commands.add_for_run("rerun", waiting.rerun, "start anew what has not completed")
    again.add_argument(
        "--from",
        action="append",
        default=[],
        dest="tasks",
        metavar="TASK",
        help="this task runs again, and all that depends on it; may be given several times",
    )
    again.add_argument("--inputs", metavar="JSON", help="an object; default: as before")
    _add_waiting(again)

    why = commands.add("why", verbs.why, "say why a task, or what is live of a run, is where it is")
    why.add_argument("id", metavar="ID", help="id of a task or of a run")

    signal = commands.add_for_run("signal", verbs.signal, "tell a run what it waits for")
    signal.add_argument("name", metavar="NAME", help="name of the signal")
    signal.add_argument("--data", metavar="JSON", default="null", help="what comes with it")


def _add_people(commands: _Verbs) -> None:
    for name, verb in (("approve", verbs.approve), ("reject", verbs.reject)):
        decide = commands.add(name, verb, f"{name} what a task asks for")
        decide.add_argument("task", metavar="TASK", help="id of the task, see: opscore approvals")
        decide.add_argument("--comment", default="", help="why; it is kept")
    for name, verb, purpose in (
        ("approvals", verbs.approvals, "show what waits for a person's decision"),
        ("schedules", verbs.schedules, "show what starts runs by the clock"),
    ):
        shown = commands.add(name, verb, purpose)
        shown.add_argument("--limit", type=int, default=50, help="how many (default 50)")


def _add_input(parser: argparse.ArgumentParser, option: str, kind: str, what: str) -> None:
    parser.add_argument(
        option,
        action="append",
        default=[],
        metavar=f"NAME={kind}",
        help=f"an input that is {what}; may be given several times",
    )


def _add_waiting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wait", action="store_true", help="show the progress until the run has ended"
    )
    parser.add_argument("--timeout-s", type=float, metavar="S", help="wait at most so many seconds")
    parser.add_argument(
        "--patience",
        type=waiting.duration,
        default=120.0,
        metavar="TIME",
        help="stay so long while the platform does not answer: 90s, 2m, 1h (default 2m)",
    )
    parser.add_argument("--every-s", type=float, default=0.5, metavar="S", help=argparse.SUPPRESS)


if __name__ == "__main__":
    sys.exit(main())
