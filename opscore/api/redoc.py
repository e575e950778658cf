"""The API document as Redoc shows it: from here, with no font or script of anybody else."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.templatetags.static import static

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Ops-Core API</title>
<link rel="icon" href="data:,">
</head>
<body>
<redoc spec-url="/api/v1/schema" required-props-first="true"></redoc>
<script src="{script}"></script>
</body>
</html>
"""
_SCRIPT = "drf_spectacular_sidecar/redoc/bundles/redoc.standalone.js"


def redoc(request: HttpRequest) -> HttpResponse:
    """Return the page; its script reads `/api/v1/schema`."""
    return HttpResponse(_PAGE.format(script=static(_SCRIPT)))
