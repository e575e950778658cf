"""For tests of agents and clients: a platform in memory, and agents that run beside the test."""

from opscore_sdk.testing.platform import MemoryPlatform, Seen
from opscore_sdk.testing.running import running

__all__ = ["MemoryPlatform", "Seen", "running"]
