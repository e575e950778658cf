"""The `opscore` command: calls what `commands` names, and says what becomes of errors.

It loads what a command needs when it is called: `--help` and wrong usage wait for no HTTP client.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any
from urllib.parse import unquote

import opscore_sdk
from opscore_sdk import commands
from opscore_sdk.errors import InvalidError, NotFoundError, OpsCoreError
from opscore_sdk.statuses import DONE, INTERRUPTED, INVALID, REFUSED, UsageError

Verb = Callable[["opscore_sdk.Client", argparse.Namespace], int]
#: A command that asks no platform, or looks for itself whether there is one.
Lone = Callable[[argparse.Namespace], int]

#: Argument that names something by its id -> where such ids are to be seen.
_IDS = {
    "run": "opscore runs --all shows the newest runs with their ids",
    "task": "opscore approvals shows the tasks that wait for a decision, with their ids",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status (see `statuses`); never raises."""
    options = commands.parser().parse_args(arguments)
    try:
        return _done(options)
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


def _done(options: argparse.Namespace) -> int:
    verb = _function(options.verb)
    if options.alone:
        alone: Lone = verb
        return alone(options)
    with opscore_sdk.Client() as client:
        asking: Verb = verb
        return asking(client, options)


def _function(named: str) -> Any:
    module, name = named.split(".")
    return getattr(import_module(f"opscore_sdk.{module}"), name)


def _complain(error: Exception, options: argparse.Namespace, status: int) -> int:
    from opscore_sdk import report  # noqa: PLC0415 - see above

    if options.json:
        print(json.dumps(report.error_as_json(error)))
    errors = getattr(error, "errors", ())
    for problem in errors:
        report.say(f"{report.place_of(problem, getattr(options, 'file', None))}: {problem}")
    if not errors or isinstance(error, NotFoundError):
        report.say(f"opscore: {error}")
    for hint in getattr(error, "__notes__", ()):
        report.say(f"opscore: hint: {hint}")
    return status


def _explained(error: NotFoundError, options: argparse.Namespace) -> NotFoundError:
    """Return the error in the words of the command: which argument is no id, where ids are.

    One that does not name the id is about something else, as an entry of the run.
    """
    for kind, where in _IDS.items():
        named = getattr(options, kind, None)
        if named is not None and error.code and named in unquote(str(error)):
            sentence = f"{named!r} is no id of a {kind}; {where}."
            body = {"code": error.code, "request_id": error.request_id}
            return NotFoundError(error.status, sentence, body)
    return error


if __name__ == "__main__":
    sys.exit(main())
