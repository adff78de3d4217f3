"""The operator's settings as the steps read them."""

from __future__ import annotations

from meshgw.engine import Graph
from meshgw.ir.gateway import Settings
from meshgw.resolve import tables as t
from meshgw.resolve.settings import read_settings


def test_the_defaults_hold_until_there_are_settings() -> None:
    graph = Graph(sources=(t.SETTINGS,), steps=())
    assert read_settings(graph) == Settings()
    graph.commit({t.SETTINGS: {t.SINGLE: Settings(mesh=True)}})
    assert read_settings(graph).mesh
