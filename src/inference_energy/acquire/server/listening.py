"""Who listens on a TCP port of this machine, and whether anyone does."""

from __future__ import annotations

import errno
import socket

import psutil


def listening_pids(port: int) -> set[int]:
    """The processes that listen on the port; empty when there are none, or when they are another user's."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return set()
    return {
        connection.pid
        for connection in connections
        if connection.status == psutil.CONN_LISTEN and connection.pid and connection.laddr[1:2] == (port,)
    }


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could bind the port there, as uvicorn does it (SO_REUSEADDR: old connections do not matter).

    Raises:
        OSError: the host is no address of this machine.
    """
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    return False
                raise
    return True
