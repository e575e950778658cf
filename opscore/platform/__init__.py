"""The whole platform of one host, in the foreground: services, web, beat, supervisor, Flower."""

from __future__ import annotations

from opscore.platform.running import Platform, PlatformError

__all__ = ["Platform", "PlatformError"]
