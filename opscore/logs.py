"""Logs: one structured line for each change that matters, readable in a terminal or as JSON."""

from __future__ import annotations

import os
import sys
from typing import Any

import structlog
from structlog.types import Processor

_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def logging_config(style: str, level: str) -> dict[str, Any]:
    """Return Django's LOGGING: structlog renders our lines and everybody else's alike."""
    renderer = structlog.processors.JSONRenderer() if style == "json" else _console()
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    tail: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if style == "json":
        tail.append(structlog.processors.format_exc_info)
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": _SHARED,
                "processors": [*tail, renderer],
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # Every job start and end is one line of theirs; ours say what changed.
            "celery": {"level": "WARNING"},
            "kombu": {"level": "WARNING"},
            "django.server": {"level": "WARNING"},
            "httpx": {"level": "WARNING"},
        },
    }


def _console() -> Processor:
    """Return the renderer for people: colours in a terminal only, so that log files stay plain."""
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty() and not os.environ.get("NO_COLOR"),
        # The library's default draws boxes, and shows the values of variables, secrets too.
        exception_formatter=structlog.dev.plain_traceback,
    )


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module; bind ids with `structlog.contextvars`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
