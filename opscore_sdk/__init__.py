"""Client of Ops-Core over HTTP; imports nothing of the platform itself."""

from opscore_sdk.client import Client
from opscore_sdk.errors import (
    ApiError,
    AuthenticationError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    OpsCoreError,
    Problem,
    ServerError,
    TooLargeError,
    UnreachableError,
    WaitTimeoutError,
)
from opscore_sdk.wire import Agent, Run, RunTask, Task, Uploaded, Valid, Workflow

__version__ = "0.1.0"
__all__ = [
    "Agent",
    "ApiError",
    "AuthenticationError",
    "Client",
    "ConflictError",
    "ForbiddenError",
    "InvalidError",
    "NotFoundError",
    "OpsCoreError",
    "Problem",
    "Run",
    "RunTask",
    "ServerError",
    "Task",
    "TooLargeError",
    "UnreachableError",
    "Uploaded",
    "Valid",
    "WaitTimeoutError",
    "Workflow",
]
