# One image for every process of the platform: web, beat, supervisor, flower, migrate.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    DJANGO_SETTINGS_MODULE=opscore.settings \
    OPSCORE_VAR_DIR=/var/lib/opscore \
    OPSCORE_HOST=0.0.0.0 \
    OPSCORE_LOG_FORMAT=json

# Agents of the examples read the history of git repositories.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/opscore --create-home opscore

WORKDIR /opt/opscore
COPY requirements/runtime.txt requirements/runtime.txt
RUN pip install --require-hashes --requirement requirements/runtime.txt
COPY . .
RUN pip install --no-deps --no-build-isolation ./opscore_sdk \
    && python -m compileall -q opscore agents tasks webhooks workflows opscore_sdk examples

USER opscore
VOLUME /var/lib/opscore
EXPOSE 8000
CMD ["python", "-m", "granian", "--interface", "asgi", "--host", "0.0.0.0", "--port", "8000", "--workers", "2", "--no-ws", "--backpressure", "4096", "--workers-kill-timeout", "8", "opscore.asgi:application"]
