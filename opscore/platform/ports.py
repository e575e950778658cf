"""Where the web server listens: address and port."""

from __future__ import annotations

import errno
import socket

from opscore.config import Config
from opscore.errors import ConflictError, InvalidError

_TRIES = 100


def address_of(host: str) -> str:
    """Return the IP address that OPSCORE_HOST names; InvalidError when it names none."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise InvalidError(
            f"OPSCORE_HOST: there is no address {host!r}; "
            "name one of this machine, as 127.0.0.1, ::1 or 0.0.0.0."
        ) from None
    return str(found[0][4][0])


def url_of(address: str, port: int) -> str:
    """Return the URL under which this machine itself reaches a server on that address."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - compared only
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def choose_port(config: Config) -> int:
    """Return the port that was asked for, or the first free one from the default on.

    A port that was named by OPSCORE_PORT or --port is taken at its word: ConflictError when
    somebody else listens there, or when nobody can. 0 asks for any free port.
    """
    address = address_of(config.host)
    if port := _free(address, config.port):
        return port
    if "port" in config.model_fields_set:
        raise ConflictError(
            f"Port {config.port} on {config.host} is taken. Name another one with OPSCORE_PORT "
            "(make up PORT=…); 0 picks a free one."
        )
    later = range(config.port + 1, config.port + _TRIES)
    return next(filter(None, (_free(address, port) for port in (*later, 0))))


def _free(address: str, port: int) -> int:
    """Return the port when it is free, any free one for 0; 0 when it is taken."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        # As servers do: a connection that is only waiting to be forgotten does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return 0
            raise ConflictError(
                f"The web server cannot listen on {address}, port {port}: {error.strerror}. "
                "Name others with OPSCORE_HOST and OPSCORE_PORT."
            ) from None
        return int(probe.getsockname()[1])
