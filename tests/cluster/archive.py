"""Image archives without a registry and without Docker: OCI layout, with Docker's manifest beside it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import stat
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

_EPOCH: Final = "1970-01-01T00:00:00Z"
_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ARCHITECTURE: Final = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


class Config(NamedTuple):
    """How a container of the image starts."""

    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    user: str = ""
    workdir: str = "/"
    environ: Sequence[str] = ()


class Layer:
    """Files to be laid over what is below them; the same files make the same bytes."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[tarfile.TarInfo, Path | bytes | None]] = {}

    def add(self, source: Path | bytes, target: str, *, mode: int | None = None) -> None:
        """Put a file (symbolic links are followed) or a content at `target`."""
        content = source.resolve() if isinstance(source, Path) else source
        info = self._entry(target, tarfile.REGTYPE)
        if isinstance(content, Path):
            info.size = content.stat().st_size
            info.mode = stat.S_IMODE(content.stat().st_mode) if mode is None else mode
        else:
            info.size, info.mode = len(content), 0o644 if mode is None else mode
        self._entries[info.name] = (info, content)

    def add_tree(self, source: Path, target: str, *, exclude: Iterable[str] = ()) -> None:
        """Put a folder's content below `target`, links as links, without any path element in `exclude`."""
        skipped = set(exclude)
        for base, folders, files in os.walk(source):
            folders[:] = sorted(set(folders) - skipped)
            relative = os.path.relpath(base, source)
            for name in sorted({*folders, *files} - skipped):
                path, inside = Path(base) / name, f"{target}/{relative}/{name}".replace("/./", "/")
                if path.is_symlink():
                    self.link(inside, str(path.readlink()))
                elif path.is_file():
                    self.add(path, inside)
                elif path.is_dir():
                    self.folder(inside)

    def link(self, target: str, points_to: str) -> None:
        """Put a symbolic link at `target`."""
        info = self._entry(target, tarfile.SYMTYPE)
        info.linkname = points_to
        self._entries[info.name] = (info, None)

    def folder(self, target: str, *, mode: int = 0o755) -> None:
        """Put an empty folder at `target`."""
        info = self._entry(target, tarfile.DIRTYPE)
        info.mode = mode
        self._entries[info.name] = (info, None)

    def sources(self) -> list[tuple[str, Path]]:
        """Return the targets that are filled from files, and those files."""
        return sorted((name, content) for name, (_, content) in self._entries.items() if isinstance(content, Path))

    def write(self, path: Path) -> None:
        """Write the layer as an uncompressed tar file."""
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            for name in sorted(self._entries):
                info, content = self._entries[name]
                if isinstance(content, Path):
                    with content.open("rb") as source:
                        archive.addfile(info, source)
                else:
                    archive.addfile(info, None if content is None else io.BytesIO(content))

    def _entry(self, target: str, kind: bytes) -> tarfile.TarInfo:
        """Return an entry at `target`, with the folders above it."""
        name = target.strip("/")
        parent = name.rpartition("/")[0]
        if parent and parent not in self._entries:
            self.folder(parent, mode=0o1777 if parent == "tmp" else 0o755)
        info = tarfile.TarInfo(name)
        info.type = kind
        return info


def write_archive(path: Path, name: str | Sequence[str], layers: Sequence[Layer | Path], config: Config) -> None:
    """Write an image to `path` under one name (`registry/repository:tag`) or several; a layer may be a tar file."""
    written = []
    tars = []
    try:
        for number, layer in enumerate(layers):
            if isinstance(layer, Path):
                tars.append(layer)
                continue
            scratch = path.with_name(f".{path.name}.layer{number}")
            written.append(scratch)
            tars.append(scratch)
            layer.write(scratch)
        names = [name] if isinstance(name, str) else name
        _assemble(path, names, [(layer, _digest(layer)) for layer in tars], config)
    finally:
        for scratch in written:
            scratch.unlink(missing_ok=True)


def _assemble(path: Path, names: Sequence[str], layers: Sequence[tuple[Path, str]], config: Config) -> None:
    described = _encode(_config(config, [digest for _, digest in layers]))
    manifest = _encode(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _reference("application/vnd.oci.image.config.v1+json", described),
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": f"sha256:{digest}",
                    "size": layer.stat().st_size,
                }
                for layer, digest in layers
            ],
        }
    )
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                **_reference("application/vnd.oci.image.manifest.v1+json", manifest),
                "platform": {"architecture": ARCHITECTURE, "os": "linux"},
                "annotations": {
                    "io.containerd.image.name": name,
                    "org.opencontainers.image.ref.name": name.rpartition(":")[2],
                },
            }
            for name in names
        ],
    }
    docker = [
        {
            "Config": _blob(described),
            "RepoTags": [*names],
            "Layers": [f"blobs/sha256/{digest}" for _, digest in layers],
        }
    ]
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        _put(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _put(archive, "index.json", _encode(index))
        _put(archive, "manifest.json", _encode(docker))
        _put(archive, _blob(described), described)
        _put(archive, _blob(manifest), manifest)
        for digest, layer in {digest: layer for layer, digest in layers}.items():
            info = tarfile.TarInfo(f"blobs/sha256/{digest}")
            info.size = layer.stat().st_size
            with layer.open("rb") as source:
                archive.addfile(info, source)


def _config(config: Config, digests: Sequence[str]) -> Mapping[str, Any]:
    return {
        "architecture": ARCHITECTURE,
        "os": "linux",
        "created": _EPOCH,
        "config": {
            "Env": [_PATH, *config.environ],
            "Entrypoint": list(config.entrypoint) or None,
            "Cmd": list(config.command) or None,
            "WorkingDir": config.workdir,
            "User": config.user,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created": _EPOCH, "created_by": "tests/cluster"} for _ in digests],
    }


def _reference(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(content).hexdigest()}", "size": len(content)}


def _blob(content: bytes) -> str:
    return f"blobs/sha256/{hashlib.sha256(content).hexdigest()}"


def _put(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def _digest(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _encode(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True).encode()
