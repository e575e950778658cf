"""What the command's exit status means, and the error that is the caller's own fault."""

from __future__ import annotations

DONE = 0
#: The run failed or was cancelled.
FAILED = 1
#: Wrong usage, or a definition or inputs that are not valid.
INVALID = 2
#: The platform could not be asked or refused, or the run did not end in the time given.
REFUSED = 3
INTERRUPTED = 130

MEANINGS = """\
exit status:
  0    done; with --wait: the run completed
  1    the run failed or was cancelled
  2    wrong usage, or a definition or inputs that are not valid
  3    the platform could not be asked or refused, as for an id that it does not know; with
       --wait also: the run has not ended in --timeout-s, or the platform was away for longer
       than --patience (the run goes on)
  130  interrupted; a run that was started goes on"""


class UsageError(Exception):
    """The command was called wrongly; the message is the whole explanation."""
