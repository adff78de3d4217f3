"""Loopback addresses and ports of their own for each test process."""

from __future__ import annotations

import itertools
import os
import socket

_SEQUENCE = itertools.count()


def next_loopback() -> str:
    """Return an address of 127.0.0.0/8 that no other test of this run uses, so that fixed ports never collide."""
    pid, turn = os.getpid(), next(_SEQUENCE)
    return f"127.{64 + (pid >> 8) % 64}.{pid % 256}.{1 + turn % 250}"


def free_port(host: str = "127.0.0.1", kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return a port of `host` that nothing is bound to now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Return `count` distinct free ports of `host`."""
    probes = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((host, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def own_address() -> str:
    """Return an address of this machine that is not loopback: an API server accepts no other for endpoints."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing
        address: str = probe.getsockname()[0]
        return address
