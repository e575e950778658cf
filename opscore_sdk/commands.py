"""The commands of `opscore` with their arguments; the modules that do the work are not loaded."""

from __future__ import annotations

import argparse
from pathlib import Path

from opscore_sdk.fleet_commands import add_agents, add_breakers, add_routing
from opscore_sdk.grammar import Parser, Verbs, add_every, add_limit, add_waiting, count, duration
from opscore_sdk.statuses import MEANINGS


def parser() -> argparse.ArgumentParser:
    """Return the parser; `verb` of what it parses is what `cli.main` calls."""
    parser = Parser(
        prog="opscore",
        usage="opscore [-h] COMMAND [ARGUMENTS]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = Verbs(parser)
    commands.group("Workflows")
    _add_workflows(commands)
    commands.group("Runs")
    _add_runs(commands)
    commands.group("Tasks")
    _add_tasks(commands)
    _add_people(commands)
    commands.group("Between the agents of a run")
    _add_sharing(commands)
    commands.group("Agents")
    add_agents(commands)
    add_routing(commands)
    add_breakers(commands)
    commands.group("By the clock")
    _add_schedules(commands)
    commands.group("Access and records")
    _add_access(commands)
    _add_webhooks(commands)
    _add_secrets(commands)
    commands.group("Help")
    _add_help(commands)
    parser.description = (
        "Run workflows on Ops-Core and see how they go; `opscore COMMAND --help` tells more.\n\n"
        f"{commands.listed()}"
    )
    parser.epilog = (
        "OPSCORE_API_URL and OPSCORE_API_KEY say where the platform is; without them\n"
        f"var/opscore.env does, which `make up` writes.\n\n{MEANINGS}"
    )
    return parser


def _add_workflows(commands: Verbs) -> None:
    run = commands.add("run", "waiting.run", "upload a workflow and execute it")
    run.add_argument("file", type=Path, metavar="FILE", help="definition, YAML or .json")
    _add_inputs(run)
    _add_waiting(run)

    validate = commands.add(
        "validate",
        "verbs.validate",
        "check a definition (asks the platform, which must be running)",
    )
    validate.add_argument("file", type=Path, metavar="FILE", help="definition, YAML or .json")

    graph = commands.add(
        "graph", "verbs.graph", "show what needs what (asks the platform, which must be running)"
    )
    graph.add_argument("what", metavar="FILE|NAME", help="a definition, or a stored workflow")
    graph.add_argument("--format", choices=["text", "mermaid"], default="text")

    apply = commands.add(
        "apply", "applying.apply", "make the platform what files say: workflows, schedules, routes"
    )
    help_text = "YAML or .json; of a folder all such files in it, below it too"
    apply.add_argument("files", type=Path, nargs="+", metavar="FILE|DIR", help=help_text)
    apply.add_argument("--dry-run", action="store_true", help="only show what would change")


def _add_runs(commands: Verbs) -> None:
    runs = commands.add("runs", "run_verbs.runs", "show the newest runs, or watch one")
    runs.add_argument("--status", metavar="WORD", help="those in it; several with commas")
    runs.add_argument("--workflow", metavar="NAME", help="those of a workflow")
    runs.add_argument(
        "--all", action="store_true", help="also runs that a task of another run started"
    )
    add_limit(runs, 20)
    purpose = "show a run as it goes, until it has ended"
    below = commands.add_below(runs, "watch", "run_verbs.watch", purpose)
    for watch in (below, commands.add("watch", "run_verbs.watch", f"{purpose} (runs watch)")):
        watch.add_argument("run", metavar="RUN", help="id of a run")
        add_waiting(watch)

    status = commands.add("status", "verbs.status", "show one run with its tasks, or the newest")
    status.add_argument("run", nargs="?", metavar="RUN", help="id of a run")
    add_limit(status, 20)
    status.add_argument(
        "--all", action="store_true", help="also runs that a task of another run started"
    )

    commands.add_for_run("pause", "verbs.pause", "have a run start nothing new")
    commands.add_for_run("resume", "verbs.resume", "have a paused run go on")
    cancel = commands.add("cancel", "task_verbs.cancel", "cancel a run with all of it, or a task")
    cancel.add_argument("run", metavar="ID", help="id of a run or of a task")

    again = commands.add_for_run("rerun", "waiting.rerun", "start anew what has not completed")
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

    why = commands.add(
        "why", "verbs.why", "say why a task, or what is live of a run, is where it is"
    )
    why.add_argument("id", metavar="ID", help="id of a task or of a run")

    signal = commands.add_for_run("signal", "verbs.signal", "tell a run what it waits for")
    signal.add_argument("name", metavar="NAME", help="name of the signal")
    signal.add_argument("--data", metavar="JSON", default="null", help="what comes with it")


def _add_tasks(commands: Verbs) -> None:
    submit = commands.add("submit", "task_verbs.submit", "submit one task on its own")
    submit.add_argument("capability", metavar="CAPABILITY", help="what its agent must offer")
    submit.add_argument(
        "--require",
        action="append",
        default=[],
        metavar="LABEL",
        help="what its agent must be marked with; may be given several times",
    )
    _add_inputs(submit)
    _add_waiting(submit)

    shown = commands.add("tasks", "task_verbs.tasks", "show the newest tasks")
    shown.add_argument("--run", dest="of_run", metavar="ID", help="those of a run")
    shown.add_argument("--status", metavar="WORD", help="those in it; several with commas")
    shown.add_argument("--capability", metavar="WORD", help="those that ask for it")
    shown.add_argument("--agent", metavar="NAME", help="those that it has or had")
    add_limit(shown, 50)

    logs = commands.add("logs", "log_verbs.logs", "show a task's log, or what an agent wrote")
    logs.add_argument("of", nargs="?", metavar="TASK|AGENT", help="id of a task, or an agent")
    logs.add_argument("--agent", metavar="NAME", help="name or id of an agent")
    logs.add_argument("--task", metavar="ID", help="id of a task")
    logs.add_argument(
        "--lines", type=count, default=100, metavar="N", help="how many (default 100)"
    )
    logs.add_argument("-f", "--follow", action="store_true", help="go on until its end")
    add_every(logs)

    events = commands.add("events", "log_verbs.events", "show the newest events")
    events.add_argument("--run", dest="of_run", metavar="ID", help="those of a run")
    events.add_argument("--task", dest="of_task", metavar="ID", help="those of a task")
    events.add_argument("--agent", metavar="NAME", help="those of an agent, by name or id")
    events.add_argument("--kind", metavar="KIND", help="those of this kind, as task.lost")
    add_limit(events, 50)


def _add_sharing(commands: Verbs) -> None:
    context = commands.add_for_run(
        "context", "share_verbs.context", "show or change what the agents of a run share"
    )
    context.add_argument("key", nargs="?", metavar="KEY", help="one entry; default: all")
    context.add_argument("--set", metavar="JSON", help="write this value")
    context.add_argument("--delete", action="store_true", help="remove the entry")
    context.add_argument(
        "--if-version", type=int, metavar="N", help="only over this version; 0: only a new entry"
    )

    messages = commands.add_for_run(
        "messages", "share_verbs.messages", "show what the agents of a run told each other"
    )
    add_limit(messages, 50)

    send = commands.add_for_run("send", "share_verbs.send", "send a message to an agent of a run")
    send.add_argument("body", metavar="BODY", help="any JSON")
    send.add_argument("--agent", metavar="NAME", help="name of an agent")
    send.add_argument("--capability", metavar="WORD", help="or: to one agent that offers this")
    send.add_argument("--topic", default="", help="what it is about")
    send.add_argument("--ttl-s", type=float, metavar="S", help="kept so long (default 3600)")


def _add_schedules(commands: Verbs) -> None:
    shown = commands.add("schedules", "verbs.schedules", "show what starts runs by the clock")
    add_limit(shown, 50)
    change = commands.add(
        "schedule",
        "schedule_verbs.schedule",
        "show, pause, resume, fire or delete a schedule (opscore apply makes them)",
    )
    words = ["show", "pause", "resume", "trigger", "backfill", "delete"]
    change.add_argument("change", choices=words)
    change.add_argument("schedule", metavar="NAME", help="name or id of a schedule")
    for option, what in (("--from", "first moment"), ("--to", "moment after the last one")):
        help_text = f"backfill: {what} whose slots run, as 2026-11-21T00:00:00Z"
        change.add_argument(option, dest=option[2:] + "_", metavar="TIME", help=help_text)


def _add_access(commands: Verbs) -> None:
    shown = commands.add("keys", "access_verbs.keys", "show the API keys")
    add_limit(shown, 200)
    key = commands.add("key", "access_verbs.key", "make, rotate or revoke an API key")
    key.add_argument("change", choices=["create", "rotate", "revoke"])
    key.add_argument("name", metavar="NAME", help="its name; to rotate or revoke also its prefix")
    help_text = "read, write, agent or admin; may be given several times (default read and write)"
    key.add_argument("--scope", action="append", default=[], metavar="SCOPE", help=help_text)
    key.add_argument("--agent", metavar="NAME", help="it may act as this agent only")
    help_text = "rotate: the old one works for so long (default 1h)"
    key.add_argument("--overlap", type=duration, default=3600.0, metavar="TIME", help=help_text)

    audit = commands.add(
        "audit", "access_verbs.audit", "show who changed what from where; verify: is it whole"
    )
    audit.add_argument("--verify", action="store_true", help=argparse.SUPPRESS)
    add_limit(audit, 50)
    purpose = "follow the chain of hashes of the audit log"
    commands.add_below(audit, "verify", "access_verbs.verify", purpose)


def _add_secrets(commands: Verbs) -> None:
    shown = commands.add("secrets", "secret_verbs.secrets", "show the names of the secrets")
    add_limit(shown, 200)
    purpose = "keep a secret; its value is asked for, or read from a pipe"
    change = commands.add("secret", "secret_verbs.secret", purpose)
    change.add_argument("name", metavar="NAME", help="as in ${{ secrets.NAME }}")
    change.add_argument("--delete", action="store_true", help="delete it instead")


def _add_webhooks(commands: Verbs) -> None:
    shown = commands.add("webhooks", "hook_verbs.webhooks", "show who is told of events")
    shown.add_argument("name", nargs="?", metavar="NAME", help="what this one was told")
    add_limit(shown, 50)
    change = commands.add("webhook", "hook_verbs.webhook", "make, test or change a webhook")
    verbs = ["create", "enable", "disable", "test", "rotate", "delete"]
    change.add_argument("change", choices=verbs)
    change.add_argument("name", metavar="NAME")
    change.add_argument("--url", help="create: the address that is told")
    help_text = "create: as run.completed or task.*; may be given several times (default *)"
    change.add_argument("--event", action="append", default=[], metavar="KIND", help=help_text)
    change.add_argument("--workflow", metavar="NAME", help="create: only of runs of this workflow")
    again = commands.add("redeliver", "hook_verbs.redeliver", "send a webhook something again")
    again.add_argument("name", metavar="NAME", help="of the webhook")
    again.add_argument("delivery", metavar="ID", help="see: opscore webhooks NAME")


def _add_help(commands: Verbs) -> None:
    purpose = "check all that a support person would ask for, and say what to do"
    commands.add("doctor", "doctor.doctor", purpose, alone=True)
    purpose = "print the script that completes commands in your shell"
    shell = commands.add("completion", "completion.completion", purpose, alone=True)
    shell.add_argument("shell", choices=["bash", "zsh", "fish"])
    names = commands.add_hidden("complete-names", "completion.names")
    names.add_argument("kind")


def _add_people(commands: Verbs) -> None:
    for name, verb in (("approve", "verbs.approve"), ("reject", "verbs.reject")):
        decide = commands.add(name, verb, f"{name} what a task asks for")
        decide.add_argument("task", metavar="TASK", help="id of the task, see: opscore approvals")
        decide.add_argument("--comment", default="", help="why; it is kept")
    shown = commands.add("approvals", "verbs.approvals", "show what waits for a decision")
    add_limit(shown, 50)


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    _add_input(parser, "--input", "TEXT", "a text")
    _add_input(parser, "--input-json", "JSON", "a number, a boolean, a list or an object")
    parser.add_argument("--priority", type=int, metavar="0-9", help="9 is served first")
    parser.add_argument(
        "--fairness-key", metavar="WHOSE", help="whose work it is: tenants take turns"
    )


def _add_input(parser: argparse.ArgumentParser, option: str, kind: str, what: str) -> None:
    parser.add_argument(
        option,
        action="append",
        default=[],
        metavar=f"NAME={kind}",
        help=f"an input that is {what}; may be given several times",
    )


def _add_waiting(parser: argparse.ArgumentParser) -> None:
    text = "show the progress until the run has ended"
    parser.add_argument("--wait", action="store_true", help=text)
    add_waiting(parser)
