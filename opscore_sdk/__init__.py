"""Clients and agents of Ops-Core over HTTP; imports nothing of the platform itself.

A name is loaded when it is first asked for: the command line's `--help` waits for no HTTP client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opscore_sdk.agent import Agent
    from opscore_sdk.client import AsyncClient, Client
    from opscore_sdk.context import AsyncContext, Context
    from opscore_sdk.errors import (
        AgentStoppedError,
        ApiError,
        AuthenticationError,
        ConflictError,
        ForbiddenError,
        InvalidError,
        NotFoundError,
        OpsCoreError,
        Problem,
        ServerError,
        TaskCancelledError,
        TaskError,
        TooLargeError,
        UnreachableError,
        UnsendableError,
        VersionConflictError,
        WaitTimeoutError,
    )
    from opscore_sdk.listening import Change
    from opscore_sdk.protocol import Entry, Message
    from opscore_sdk.wire import RegisteredAgent, Run, RunTask, Task, Uploaded, Valid, Workflow

__version__ = "0.1.0"
__all__ = [
    "Agent",
    "AgentStoppedError",
    "ApiError",
    "AsyncClient",
    "AsyncContext",
    "AuthenticationError",
    "Change",
    "Client",
    "ConflictError",
    "Context",
    "Entry",
    "ForbiddenError",
    "InvalidError",
    "Message",
    "NotFoundError",
    "OpsCoreError",
    "Problem",
    "RegisteredAgent",
    "Run",
    "RunTask",
    "ServerError",
    "Task",
    "TaskCancelledError",
    "TaskError",
    "TooLargeError",
    "UnreachableError",
    "UnsendableError",
    "Uploaded",
    "Valid",
    "VersionConflictError",
    "WaitTimeoutError",
    "Workflow",
]

#: Where the names are that are no errors.
_HOMES = {
    "Agent": "agent",
    "AsyncClient": "client",
    "AsyncContext": "context",
    "Change": "listening",
    "Client": "client",
    "Context": "context",
    "Entry": "protocol",
    "Message": "protocol",
    "RegisteredAgent": "wire",
    "Run": "wire",
    "RunTask": "wire",
    "Task": "wire",
    "Uploaded": "wire",
    "Valid": "wire",
    "Workflow": "wire",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
