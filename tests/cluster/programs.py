"""The programs of a test cluster: built once from pinned Go modules, kept in `~/.cache/meshgw/programs`.

Run as a program it builds what its arguments name, everything by default, and prints where each is.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final, NamedTuple

import msgspec

from meshgw.standalone.envoy import cache_directory
from tests.cluster.toolchain import ToolchainError, find_go

Notify = Callable[[str], None]

SOURCES: Final = Path(__file__).parent / "programs"
KUBERNETES_VERSION: Final = "v1.35.4"

_BARE: Final = "-s -w"
_KUBERNETES: Final = (
    f"{_BARE} -X k8s.io/component-base/version.gitVersion={KUBERNETES_VERSION}"
    " -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=35"
    f" -X k8s.io/client-go/pkg/version.gitVersion={KUBERNETES_VERSION}"
)
_ENVIRONMENT: Final = {"CGO_ENABLED": "0", "GOFLAGS": "-trimpath -mod=readonly -buildvcs=false", "GOWORK": "off"}
_CHEAP: Final = {"GOGC": "400"}
"""What builds the same for less: the compiler collects its garbage less often, and (with `-dwarf=false`) writes no
debug information, which `-s -w` drops in the end. Together they save a quarter of the time."""
_TICK: Final = 15.0


class ProgramsError(Exception):
    """A program cannot be built; one line with cause and remedy, then what the compiler said."""


class Program(NamedTuple):
    """One binary: the folder of its go.mod, its package, and the names it is called by."""

    name: str
    module: str
    package: str
    ldflags: str = _BARE
    calls: tuple[str, ...] = ()
    about: str = ""

    def fingerprint(self) -> str:
        """Return a hash of all that decides what is built, the compiler excepted."""
        digest = hashlib.sha256(repr((self, platform.machine(), sorted(_ENVIRONMENT.items()))).encode())
        for path in sorted((SOURCES / self.module).rglob("*")):
            if path.is_file():
                digest.update(f"\0{path.relative_to(SOURCES)}\0".encode() + path.read_bytes())
        return digest.hexdigest()[:16]


PROGRAMS: Final[Mapping[str, Program]] = {
    program.name: program
    for program in (
        Program("pause", "pause", "."),
        Program(
            "control",
            "kube",
            "./control",
            _KUBERNETES,
            ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl"),
            "about 10 minutes on two cores",
        ),
        Program(
            "node",
            "kube",
            "./node",
            _KUBERNETES,
            ("kubelet", "kube-proxy", "kube-scheduler", "kubeadm"),
            "1 minute more",
        ),
        Program("kind", "kind", "sigs.k8s.io/kind", about="half a minute"),
        Program("coredns", "coredns", ".", about="about 4 minutes"),
        Program("pilot-discovery", "istio", "istio.io/istio/pilot/cmd/pilot-discovery", about="about 6 minutes"),
        Program("echo-server", "istio", "istio.io/istio/pkg/test/echo/cmd/server", about="1 minute"),
        Program("echo-client", "istio", "istio.io/istio/pkg/test/echo/cmd/client", about="1 minute"),
        Program("helm", "helm", "helm.sh/helm/v4/cmd/helm", about="2 minutes"),
    )
}

_OWNERS: Final[Mapping[str, str]] = {
    call: program.name for program in PROGRAMS.values() for call in (program.name, *program.calls)
}


def executable(call: str, *, notify: Notify | None = None) -> Path:
    """Return the path of the program called `call` (`kubectl`, `pause`, ...), built if it is not there yet.

    Blocks for minutes the first time; raises ProgramsError.
    """
    return build(_OWNERS[call], notify=notify) / call


def build(name: str, *, notify: Notify | None = None) -> Path:
    """Return the folder that holds program `name` and its other names, building it first if need be."""
    program = PROGRAMS[name]
    root = cache_directory() / "programs"
    home = root / f"{name}-{program.fingerprint()}"
    if not home.exists():
        tell = notify or _to_stderr
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / ".lock", tell):
            if not home.exists():
                _build(program, home, tell)
    return home


def is_built(name: str) -> bool:
    """Whether program `name` needs no building."""
    return (cache_directory() / "programs" / f"{name}-{PROGRAMS[name].fingerprint()}").exists()


def module_folder(module: str, path: str, *, notify: Notify | None = None) -> Path:
    """Return the folder of the sources of `path`, which the go.mod of `module` requires; downloads them if need be."""
    finished = subprocess.run(
        [_go(notify or _to_stderr), "mod", "download", "-json", path],
        cwd=SOURCES / module,
        env={**os.environ, **_ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise ProgramsError(f"cannot download the Go module {path}: {finished.stderr.strip() or finished.stdout}")
    return Path(msgspec.json.decode(finished.stdout)["Dir"])


def _build(program: Program, home: Path, tell: Notify) -> None:
    """Put the program and its links at `home`, whole or not at all."""
    go = _go(tell)
    tell(f"building {program.name}" + (f" ({program.about} unless Go has cached it)" if program.about else ""))
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".build-") as scratch:
        staged = Path(scratch) / "home"
        staged.mkdir()
        binary = staged / program.name
        options = ["-gcflags=all=-dwarf=false", "-ldflags", program.ldflags]
        command = [go, "build", "-v", *options, "-o", str(binary), program.package]
        process = subprocess.Popen(
            ["nice", *command],
            cwd=SOURCES / program.module,
            env={**os.environ, **_ENVIRONMENT, **_CHEAP},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stderr is not None
            try:
                said = _follow(process.stderr, program.name, tell)
                code = process.wait()
            finally:
                process.kill()
        if code:
            raise ProgramsError(
                f"go build of {program.name} failed; see that the module proxy (`go env GOPROXY`) can be reached, "
                f"and the disk is not full\n" + "\n".join(said[-20:])
            )
        for call in program.calls:
            (staged / call).symlink_to(program.name)
        staged.rename(home)
    tell(f"built {program.name}: {binary.name} is in {home}")


def _follow(lines: IO[str], name: str, tell: Notify) -> list[str]:
    """Return the last lines, telling now and then how far it is."""
    said: list[str] = []
    count = 0
    started = time.monotonic()
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(_TICK):
            tell(f"building {name}: {count} packages, {time.monotonic() - started:.0f} s")

    reporter = threading.Thread(target=report, daemon=True)
    reporter.start()
    for line in lines:
        count += not line.startswith("go: ")
        said = [*said[-40:], line.rstrip()]
    ended.set()
    reporter.join()
    return said


def _go(tell: Notify) -> str:
    try:
        return str(find_go(tell))
    except ToolchainError as error:
        raise ProgramsError(str(error)) from None


@contextlib.contextmanager
def _locked(path: Path, tell: Notify) -> Iterator[None]:
    """Hold an exclusive lock, so that test processes starting together build once, one program at a time."""
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("waiting for another process that builds programs")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _to_stderr(message: str) -> None:
    sys.stderr.write(f"tests/cluster: {message}\n")
    sys.stderr.flush()


def main(names: Sequence[str]) -> int:
    """Build `names`, or everything, and print the folders."""
    unknown = [name for name in names if name not in PROGRAMS]
    if unknown:
        sys.stderr.write(f"no such program: {', '.join(unknown)}; there are {', '.join(PROGRAMS)}\n")
        return 2
    try:
        for name in names or PROGRAMS:
            sys.stdout.write(f"{build(name)}\n")
    except ProgramsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
