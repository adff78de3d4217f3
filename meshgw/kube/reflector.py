"""Keeps up with the objects of one kind."""

from __future__ import annotations

from meshgw.kube.seen import Observed, Seen, Sink

__all__ = ["Observed", "Seen", "Sink"]
