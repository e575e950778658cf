"""Keys that are good for one attempt of one task: what a pushed agent reports with."""

from __future__ import annotations

import hmac
import re
from uuid import UUID

from django.utils.crypto import salted_hmac

from opscore.errors import UnauthorizedError
from opscore.models import ApiKey, Project

PREFIX = "oa_"
#: The only scope of such a key. No key that is stored can have it.
SCOPE = "attempt"
_TOKEN = re.compile(r"oa_([0-9]{1,18})_([0-9a-f]{32})_([0-9]{1,9})_([0-9a-f]{64})")


def issue(project_id: int, task_id: UUID, fence: int) -> str:
    """Return the key of an attempt; it is not stored, its signature is the proof."""
    claims = f"{project_id}_{task_id.hex}_{fence}"
    return f"{PREFIX}{claims}_{_signature(claims)}"


def verify(text: str) -> ApiKey:
    """Return a key that exists in no table: the token's project, `attempt` and scope.

    Whether the attempt is over is not asked here: its fence says so. Raises UnauthorizedError.
    """
    found = _TOKEN.fullmatch(text)
    claims = "_".join(found.groups()[:3]) if found else ""
    if found is None or not hmac.compare_digest(found[4], _signature(claims)):
        raise UnauthorizedError("This key of an attempt is not valid.")
    project = Project.objects.filter(pk=int(found[1])).first()
    if project is None:
        raise UnauthorizedError("This key of an attempt is not valid.")
    key = ApiKey(project=project, name=f"attempt {UUID(found[2])}", scopes=[SCOPE])
    key.attempt = (UUID(found[2]), int(found[3]))
    return key


def _signature(claims: str) -> str:
    return salted_hmac("opscore.attempt", claims, algorithm="sha256").hexdigest()
