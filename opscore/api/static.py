"""Static files of admin and API pages, from the installed packages: no collectstatic, no proxy."""

from __future__ import annotations

import mimetypes
from functools import lru_cache
from pathlib import Path

from django.contrib.staticfiles import finders
from django.core.exceptions import SuspiciousFileOperation
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotModified
from django.utils.http import http_date, parse_http_date_safe

#: Names hold no hash, so a browser may keep a file for an hour and then asks again (304).
_CACHE = "public, max-age=3600"


def serve(request: HttpRequest, path: str) -> HttpResponse:
    """Send one file that an installed app brings; raises Http404 for anything else."""
    file = _found(path)
    if file is None or request.method not in {"GET", "HEAD"}:
        raise Http404("There is no such file.")
    changed = int(file.stat().st_mtime)
    headers = {"Cache-Control": _CACHE, "Last-Modified": http_date(changed)}
    since = parse_http_date_safe(request.headers.get("If-Modified-Since", ""))
    if since is not None and since >= changed:
        return HttpResponseNotModified(headers=headers)
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    return HttpResponse(file.read_bytes(), content_type=kind, headers=headers)


@lru_cache(maxsize=2048)
def _found(path: str) -> Path | None:
    try:
        found = finders.find(path)
    except (SuspiciousFileOperation, ValueError):
        return None
    return Path(found) if isinstance(found, str) and Path(found).is_file() else None
