"""Ports of this machine."""

from __future__ import annotations

import socket

from plumbline.errors import PlumblineError


def free_port() -> int:
    """Return a port that nothing listens at just now; another program may take it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def refuse_taken(host: str, port: int, who: str) -> None:
    """Raise `PlumblineError` where a server cannot listen at a port. ``who``: which server."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PlumblineError(
                f"{who} cannot listen on {host}, port {port}: {error.strerror}. Another program "
                "may use it. Choose another port with --port."
            ) from None
