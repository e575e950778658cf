"""Django and Celery settings, derived from `opscore.config`; no value is decided twice."""

from __future__ import annotations

import os
import secrets
import sys
from typing import Any

from pydantic import ValidationError

from opscore.config import ROOT, Config, django_database, listed, load_config, said
from opscore.kept import kept_secret
from opscore.logs import logging_config
from opscore.production import refusals
from opscore.schedule import BEAT_SCHEDULE, PLATFORM_QUEUE


def _config() -> Config:
    try:
        return load_config()
    except ValidationError as error:
        sys.exit(said(error))


def _refuse(problems: list[str]) -> None:
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        sys.exit(f"Settings that are not fit for production (OPSCORE_ENV):\n{lines}")


CONFIG = _config()
_refuse(refusals(CONFIG, os.environ, sys.argv))

BASE_DIR = ROOT
SECRET_KEY = CONFIG.secret_key.get_secret_value() or kept_secret(
    CONFIG.var_dir / "secret_key", lambda: secrets.token_urlsafe(48)
)
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
LOGIN_REDIRECT_URL = "/admin/"
DATA_UPLOAD_MAX_MEMORY_SIZE = CONFIG.max_body_bytes

# ---------------------------------------------------------------- Passwords
_validation = "django.contrib.auth.password_validation"
AUTH_PASSWORD_VALIDATORS: list[dict[str, Any]] = [
    {"NAME": f"{_validation}.UserAttributeSimilarityValidator"},
    {"NAME": f"{_validation}.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": f"{_validation}.CommonPasswordValidator"},
    {"NAME": f"{_validation}.NumericPasswordValidator"},
]

# ---------------------------------------------------------------- Browsers
_production = CONFIG.env == "production"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _production
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SECURE_SSL_REDIRECT = _production
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if _production else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = _production
# `opscore.api.middleware` drops the header where it does not come from a proxy that is trusted.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if CONFIG.trusted_proxies else None

INSTALLED_APPS = [
    # First: its commands take the place of Django's.
    "opscore.audit.apps.AuditConfig",
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
    "webhooks.apps.WebhooksConfig",
    "workflows.apps.WorkflowsConfig",
]

MIDDLEWARE = [
    "opscore.api.middleware.RequestFrame",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "opscore.audit.pages.PageAudit",
    "opscore.logins.LoginFirst",
    "opscore.logins.LoginGuard",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        # Before the theme's own: its first page is replaced.
        "DIRS": [ROOT / "opscore" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "opscore.oidc.pages.offered",
            ]
        },
    }
]

DATABASES = {"default": django_database(CONFIG.service_url("database_url"))}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["opscore.api.auth.KeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["opscore.api.auth.HasScope"],
    "DEFAULT_THROTTLE_CLASSES": ["opscore.api.rates.KeyRate"],
    "DEFAULT_RENDERER_CLASSES": ["opscore.api.shown.ReadyJSON"],
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
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "opscore.api.examples.show_examples",
    ],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
}
UNFOLD = {
    "SITE_TITLE": "Ops-Core",
    "SITE_HEADER": "Ops-Core",
    "SITE_SYMBOL": "hub",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "/static/opscore/icon.svg"}],
    "SIDEBAR": {"show_search": True, "navigation": "opscore.admin_menu.groups"},
    "DASHBOARD_CALLBACK": "workflows.dashboard.home",
}
