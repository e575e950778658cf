"""What the command's exit status means, and the error that is the caller's own fault."""

from __future__ import annotations

DONE = 0
#: The run failed or was cancelled; `doctor` or `audit verify` found something that is not well.
FAILED = 1
#: Wrong usage, or a definition or inputs that are not valid.
INVALID = 2
#: The platform could not be asked or refused, or the run did not end in the time given.
REFUSED = 3
INTERRUPTED = 130

#: Exit status -> what it means; `docs/cli.md` says the same.
TABLE = {
    DONE: "done; of `watch` and with --wait: the run completed",
    FAILED: "the run failed or was cancelled; doctor or audit verify found something wrong",
    INVALID: "wrong usage, or a definition, a file or inputs that are not valid",
    REFUSED: "the platform could not be asked or refused, as for an id that it does not know; "
    "of `watch` and with --wait also: the run has not ended in --timeout-s, or the platform was "
    "away for longer than --patience (the run goes on)",
    INTERRUPTED: "interrupted; a run that was started goes on",
}


def _wrapped(status: int, text: str) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > 88:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n       ".join([f"  {status:<3}  {lines[0]}", *lines[1:]])


MEANINGS = "\n".join(["exit status:", *(_wrapped(*row) for row in TABLE.items())])


class UsageError(Exception):
    """The command was called wrongly; the message is the whole explanation."""
