"""Headers that tell browsers what a page may do; on every answer."""

from __future__ import annotations

from django.conf import settings
from django.http.response import HttpResponseBase

_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
#: Data: nothing in it is ever run or shown as a page.
_DATA = "default-src 'none'; frame-ancestors 'none'"
_SELF = (
    "default-src 'none'; script-src 'self'{scripts}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; manifest-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
#: Unfold is built on Alpine.js, which compiles the expressions in its attributes; there are no
#: inline scripts. Styles stand inline in its pages and in ours.
_PAGES = _SELF.format(scripts=" 'unsafe-eval'")
_DOCS = _SELF.format(scripts="")
#: Redoc searches in a worker that it makes of its own script.
_REDOC = f"{_DOCS}; worker-src 'self' blob:"
_OWN = {"/api/v1/docs": _DOCS, "/api/v1/redoc": _REDOC}


def protect(response: HttpResponseBase, path: str, *, is_page: bool) -> None:
    """Add the headers that are not there yet."""
    for name, value in _ALWAYS.items():
        response.headers.setdefault(name, value)
    policy = _OWN.get(path, _PAGES if is_page else _DATA)
    response.headers.setdefault("Content-Security-Policy", policy)
    if settings.SECURE_HSTS_SECONDS:
        lasts = f"max-age={settings.SECURE_HSTS_SECONDS}; includeSubDomains; preload"
        response.headers.setdefault("Strict-Transport-Security", lasts)
