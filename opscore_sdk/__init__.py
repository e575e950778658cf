"""Clients and agents of Ops-Core over HTTP; imports nothing of the platform itself."""

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
    VersionConflictError,
    WaitTimeoutError,
)
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
    "Uploaded",
    "Valid",
    "VersionConflictError",
    "WaitTimeoutError",
    "Workflow",
]
