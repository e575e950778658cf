"""PostgreSQL and Valkey from wheels, started as direct children of this process."""

from __future__ import annotations

from opscore.embedded.children import ChildError
from opscore.embedded.services import Services, ServicesBusyError

__all__ = ["ChildError", "Services", "ServicesBusyError"]
