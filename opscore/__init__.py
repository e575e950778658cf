"""The ground of Ops-Core: settings, Celery app, keys, errors, the API frame."""

__version__ = "0.1.0"
