"""The API document, generated once in each process."""

from __future__ import annotations

from functools import cache

from django.http import HttpRequest, HttpResponse
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer, OpenApiYamlRenderer
from drf_spectacular.settings import spectacular_settings

from opscore.api.problems import Failure

_RENDERERS = {"yaml": OpenApiYamlRenderer, "json": OpenApiJsonRenderer}


def document(request: HttpRequest) -> HttpResponse:
    """Return it as YAML; `?format=json`, or `Accept` with JSON and no YAML, as JSON."""
    accepted = request.headers.get("Accept", "")
    wants_json = "json" in accepted and "yaml" not in accepted
    kind = request.GET.get("format", "json" if wants_json else "yaml")
    if kind not in _RENDERERS:
        detail = f"The document has no format {kind[:40]!r}; there are yaml and json."
        return Failure(400, detail).respond()
    return HttpResponse(_rendered(kind), content_type=_RENDERERS[kind].media_type)


@cache
def _rendered(kind: str) -> bytes:
    # Seconds of processor: nobody without a key may ask for that again and again.
    generator = SchemaGenerator(api_version=spectacular_settings.VERSION)  # type: ignore[no-untyped-call]
    schema = generator.get_schema(public=True)  # type: ignore[no-untyped-call]
    rendered = _RENDERERS[kind]().render(schema, renderer_context={})
    return rendered if isinstance(rendered, bytes) else rendered.encode()
