"""Which port the web server gets."""

from __future__ import annotations

import socket

from opscore.config import Config
from opscore.embedded.children import free_port
from opscore.errors import ConflictError

_TRIES = 100


def choose_port(config: Config) -> int:
    """Return the port that was asked for, or the first free one from the default on.

    A port that was named by OPSCORE_PORT or --port is taken at its word: ConflictError when
    somebody else listens there. 0 asks for any free port.
    """
    if config.port == 0:
        return free_port(config.host)
    if _is_free(config.host, config.port):
        return config.port
    if "port" in config.model_fields_set:
        raise ConflictError(
            f"Port {config.port} on {config.host} is taken. Name another one with OPSCORE_PORT "
            "(make up PORT=…); 0 picks a free one."
        )
    for port in range(config.port + 1, config.port + _TRIES):
        if _is_free(config.host, port):
            return port
    return free_port(config.host)


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a connection that is only waiting to be forgotten does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
