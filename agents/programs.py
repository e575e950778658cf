"""Programs that hosts' agent specs name: where they are found, and what they get to see."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import NoReturn

from agents.specs import Spec
from agents.supervisor import processes

#: What of the agent's own environment a program may see; all else is the platform's.
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", processes.MARK)
#: Signals that Python ignores; a program expects them as the kernel has them.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT)


def environment(python: str, own: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a program: the spec's `own` words and little else.

    `python` is the folder of a virtual environment's programs, which come first then; '' means
    those of the platform's own Python.
    """
    known = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    first = python or os.path.dirname(sys.executable)
    path = os.pathsep.join((first, known.get("PATH", os.defpath)))
    virtual = {"VIRTUAL_ENV": os.path.dirname(python)} if python else {}
    return {**known, "PATH": path, **virtual, **own}


def found(word: str, cwd: str) -> str:
    """Return the program's path where it lies in its own folder, else its name."""
    beside = os.path.join(cwd, word)
    return beside if os.path.isfile(beside) else word


def why_not(error: OSError | ValueError, program: str, cwd: str) -> str:
    """Say why a program cannot be started, and what to do."""
    if isinstance(error, FileNotFoundError):
        if not os.path.isdir(cwd):
            return f"there is no folder {cwd}"
        if os.path.isfile(program):
            return f"the interpreter in the first line of {program!r} does not exist"
        return f"there is no program {program!r} (searched in the folder {cwd} and in PATH)"
    if isinstance(error, PermissionError):
        return f"{program!r} is not executable; try: chmod +x {program}"
    return str(error)


def replace_process(spec: Spec, own: Mapping[str, str]) -> NoReturn:
    """Become the program of a spec of kind `process`. Raises OSError or ValueError if it cannot.

    Python programs do not import from the folder of their script, so that their own modules
    and the platform's never hide each other.
    """
    env = environment(spec.python, {"PYTHONSAFEPATH": "1", **spec.env, **own})
    for number in _IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    os.chdir(spec.cwd)
    program = found(spec.command[0], spec.cwd)
    spec.limits.apply()
    os.execvpe(program, [program, *spec.command[1:]], env)  # noqa: S606 - that is the point
