from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import meshgw
from meshgw.protos import Cluster, Route, Struct, VirtualHost, any_of, duration, encode, field


@given(st.binary(max_size=300))
def test_fields_are_framed_as_protobuf_frames_them(body: bytes) -> None:
    name = body.hex()
    assert field(1, name.encode()) == VirtualHost(name=name).SerializeToString() or not name


def test_long_fields_have_long_lengths() -> None:
    name = "x" * 70_000
    assert field(14, name.encode()) == Route(name=name).SerializeToString()
    assert field(21, b"") == VirtualHost(matcher={}).SerializeToString()


def test_equal_messages_have_equal_bytes() -> None:
    one, other = Struct(), Struct()
    names = [f"key-{number}" for number in range(50)]
    one.update(dict.fromkeys(names, "x"))
    other.update(dict.fromkeys(reversed(names), "x"))
    assert encode(one) == encode(other)
    assert any_of(one) == any_of(other)
    assert any_of(Cluster()).type_url == "type.googleapis.com/envoy.config.cluster.v3.Cluster"


@pytest.mark.parametrize(("milliseconds", "seconds", "nanos"), [(0, 0, 0), (1, 0, 1_000_000), (2_500, 2, 500_000_000)])
def test_durations_are_exact(milliseconds: int, seconds: int, nanos: int) -> None:
    built = duration(milliseconds)
    assert (built.seconds, built.nanos) == (seconds, nanos)


def test_no_other_module_of_the_core_imports_generated_code() -> None:
    root = Path(meshgw.__file__).parent
    core = [
        path
        for folder in ("emit", "resolve", "ir", "api", "engine", "diagnose", "features")
        for path in (root / folder).rglob("*.py")
    ]
    importers = {path.relative_to(root).as_posix() for path in [*core, *root.glob("*.py")] if _generated(path)}
    assert importers == {"protos.py"}


def _generated(path: Path) -> bool:
    modules: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules.append(node.module or "")
    return any(module.split(".")[0] in {"envoy", "google", "xds", "udpa"} for module in modules)
