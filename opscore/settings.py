"""Django and Celery settings, derived from `opscore.config`; no value is decided twice."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from opscore.config import ROOT, Config, django_database, listed, load_config, not_ours, said
from opscore.logs import logging_config
from opscore.schedule import BEAT_SCHEDULE, PLATFORM_QUEUE


def _config() -> Config:
    try:
        return load_config()
    except ValidationError as error:
        sys.exit(said(error))


def _kept_secret(path: Path) -> str:
    """Return the secret in `path`, made on first use and readable by its owner only."""
    try:
        if not path.exists():
            _keep(path, secrets.token_urlsafe(48))
        return path.read_text()
    except PermissionError as error:
        sys.exit(not_ours(error))


def _keep(path: Path, secret: str) -> None:
    """Write it whole before it has its name; of many who do it at once, the first one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=".secret_key.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secret)
        with contextlib.suppress(FileExistsError):
            os.link(unfinished, path)
    finally:
        os.unlink(unfinished)


CONFIG = _config()

BASE_DIR = ROOT
SECRET_KEY = CONFIG.secret_key.get_secret_value() or _kept_secret(CONFIG.var_dir / "secret_key")
DEBUG = CONFIG.debug
ALLOWED_HOSTS = listed(CONFIG.allowed_hosts)
ROOT_URLCONF = "opscore.urls"
ASGI_APPLICATION = "opscore.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
# Clients of this API send paths without a trailing slash and follow no redirect.
APPEND_SLASH = False
STATIC_URL = "/static/"
DATA_UPLOAD_MAX_MEMORY_SIZE = CONFIG.max_body_bytes

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "opscore.apps.OpscoreConfig",
    "agents.apps.AgentsConfig",
    "tasks.apps.TasksConfig",
    "workflows.apps.WorkflowsConfig",
]

MIDDLEWARE = [
    "opscore.api.middleware.RequestFrame",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = {"default": django_database(CONFIG.service_url("database_url"))}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["opscore.api.auth.KeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["opscore.api.auth.HasScope"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_PAGINATION_CLASS": "opscore.api.pages.Page",
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "EXCEPTION_HANDLER": "opscore.api.problems.answer",
}

LOGGING = logging_config(CONFIG.log_format, CONFIG.log_level)

# ---------------------------------------------------------------- Celery
_broker = CONFIG.service_url("broker_url")
_on_redis = not _broker.startswith("amqp")
_results = CONFIG.result_url or (_broker if _on_redis else "")

CELERY_BROKER_URL = _broker
CELERY_RESULT_BACKEND = _results or None
if CONFIG.join == "chord" and not _results:
    sys.exit("OPSCORE_JOIN=chord needs a result backend: set OPSCORE_RESULT_URL=redis://…")
OPSCORE_JOIN = CONFIG.join or ("chord" if _results else "database")
CELERY_BEAT_SCHEDULE = BEAT_SCHEDULE
CELERY_BEAT_SCHEDULE_FILENAME = str(CONFIG.var_dir / "beat")
CELERY_TIMEZONE = "UTC"
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_RESULT_ACCEPT_CONTENT = ["json"]
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
# Attempts and losses are counted in the database; a broker that requeues the message of a
# dead worker on its own would loop for ever on a task that kills its worker.
CELERY_TASK_REJECT_ON_WORKER_LOST = False
CELERY_TASK_CREATE_MISSING_QUEUES = True
CELERY_TASK_DEFAULT_QUEUE = PLATFORM_QUEUE
CELERY_TASK_QUEUE_MAX_PRIORITY = None if _on_redis else 10
CELERY_TASK_SEND_SENT_EVENT = CONFIG.events
CELERY_WORKER_SEND_TASK_EVENTS = CONFIG.events
CELERY_WORKER_POOL = "agents.pool:ThreadPool"
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_DISABLE_PREFETCH = _on_redis
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_REDIRECT_STDOUTS = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_POOL_ACQUIRE_TIMEOUT = 5
CELERY_RESULT_EXPIRES = 3600
# Redis forgets a chord's counter with the results, and then its body never runs.
CELERY_RESULT_CHORD_EXPIRES = 7 * 24 * 3600
_redis_sockets = {"socket_timeout": 10, "socket_connect_timeout": 5, "socket_keepalive": True}
CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS = _redis_sockets if _on_redis else {}
CELERY_REDIS_SOCKET_TIMEOUT = 10
CELERY_REDIS_SOCKET_CONNECT_TIMEOUT = 5
CELERY_REDIS_SOCKET_KEEPALIVE = True
CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any] = (
    {
        **_redis_sockets,
        # A worker that holds unacknowledged messages dies when Redis restarts (Celery 5.7.0);
        # recovery is the database's work anyway.
        "ack_emulation": False,
        "priority_steps": list(range(10)),
        "queue_order_strategy": "priority",
    }
    if _on_redis
    else {"confirm_publish": True}
)

# ---------------------------------------------------------------- API document, admin
SPECTACULAR_SETTINGS = {
    "TITLE": "Ops-Core",
    "DESCRIPTION": "Durable orchestration of multi-agent systems.",
    "VERSION": "v1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
}
UNFOLD = {"SITE_TITLE": "Ops-Core", "SITE_HEADER": "Ops-Core", "SITE_SYMBOL": "hub"}
