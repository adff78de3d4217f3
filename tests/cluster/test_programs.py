from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cluster import programs, toolchain
from tests.cluster.programs import PROGRAMS, SOURCES, Program, ProgramsError, build, executable, is_built


@pytest.fixture
def go_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Go module with the program `hello`, which has two more names, and an empty cache."""
    monkeypatch.setenv("MESHGW_CACHE", str(tmp_path / "cache"))
    sources = tmp_path / "sources"
    (sources / "hello").mkdir(parents=True)
    (sources / "hello" / "go.mod").write_text("module example.test/hello\n\ngo 1.26.0\n")
    (sources / "hello" / "main.go").write_text(
        'package main\n\nimport (\n\t"os"\n\t"path/filepath"\n)\n\n'
        "func main() { os.Stdout.WriteString(filepath.Base(os.Args[0])) }\n"
    )
    monkeypatch.setattr(programs, "SOURCES", sources)
    monkeypatch.setitem(PROGRAMS, "hello", Program("hello", "hello", ".", calls=("one", "two")))
    for call in ("hello", "one", "two"):
        monkeypatch.setitem(programs._OWNERS, call, "hello")
    return sources / "hello"


def test_program_is_built_once_and_called_by_its_names(go_project: Path) -> None:
    told: list[str] = []
    assert not is_built("hello")
    for call in ("one", "two"):
        path = executable(call, notify=told.append)
        assert subprocess.run([path], capture_output=True, text=True, check=True).stdout == call
    assert is_built("hello")
    assert told.count("building hello") == 1


def test_changed_sources_and_flags_are_built_anew(go_project: Path) -> None:
    program = PROGRAMS["hello"]
    before = program.fingerprint()
    assert program._replace(ldflags="-X a.b=c").fingerprint() != before
    (go_project / "more.go").write_text("package main\n")
    assert program.fingerprint() != before


def test_compiler_error_is_shown_and_leaves_nothing(go_project: Path, tmp_path: Path) -> None:
    (go_project / "main.go").write_text("package main\n\nfunc main() { oops() }\n")
    with pytest.raises(ProgramsError, match="undefined: oops"):
        build("hello", notify=lambda _: None)
    assert [path.name for path in (tmp_path / "cache" / "programs").iterdir()] == [".lock"]


def test_without_go_and_without_a_toolchain_to_fetch_the_remedy_is_told(
    go_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain, "_version", lambda go: (1, 19))
    monkeypatch.setattr(toolchain, "ARCHIVES", {})
    with pytest.raises(ProgramsError, match=r"install Go 1\.26 or newer"):
        build("hello")


def test_toolchain_that_is_not_the_pinned_one_is_refused(
    go_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import http.server
    import threading

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"not a toolchain")

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(toolchain, "_version", lambda go: ())
    with http.server.HTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("GOPROXY", f"http://127.0.0.1:{server.server_port},direct")
        try:
            with pytest.raises(ProgramsError, match="is not the expected file"):
                build("hello", notify=lambda _: None)
        finally:
            server.shutdown()
            thread.join()
    assert not list((tmp_path / "cache" / "go").glob("v*"))


def test_every_module_pins_its_sums() -> None:
    for program in PROGRAMS.values():
        folder = SOURCES / program.module
        requires = "require" in (folder / "go.mod").read_text()
        assert (folder / "go.sum").exists() == requires, program.name
