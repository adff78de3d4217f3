"""Incremental computation: source tables, derived tables of pure functions, atomic commits."""

from __future__ import annotations

from meshgw.engine.commit import Delta, Graph
from meshgw.engine.derived import Derived, Group, Step, Union
from meshgw.engine.inspect import Cause, Contents, Reason, dot, dump, why
from meshgw.engine.reads import View
from meshgw.engine.table import DuplicateKeyError, Fault, Table, WiringError

__all__ = [
    "Cause",
    "Contents",
    "Delta",
    "Derived",
    "DuplicateKeyError",
    "Fault",
    "Graph",
    "Group",
    "Reason",
    "Step",
    "Table",
    "Union",
    "View",
    "WiringError",
    "dot",
    "dump",
    "why",
]
