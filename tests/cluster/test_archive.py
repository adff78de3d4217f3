from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

from tests.cluster.archive import Config, Layer, write_archive


def _layer(folder: Path) -> Layer:
    (folder / "tree" / "inside").mkdir(parents=True)
    (folder / "tree" / "inside" / "file").write_text("content")
    (folder / "tree" / "__pycache__").mkdir()
    (folder / "tree" / "__pycache__" / "x.pyc").write_text("")
    (folder / "tree" / "link").symlink_to("inside/file")
    layer = Layer()
    layer.add(b"#!/bin/true", "/usr/bin/program", mode=0o755)
    layer.add_tree(folder / "tree", "/opt/tree", exclude=["__pycache__"])
    layer.folder("/tmp", mode=0o1777)
    return layer


def test_archive_is_what_its_digests_say(tmp_path: Path) -> None:
    config = Config(["/usr/bin/program"], ["--flag"], "65532:65532", "/opt", ["A=b"])
    write_archive(tmp_path / "image.tar", "example.test/image:1", [_layer(tmp_path)], config)
    with tarfile.open(tmp_path / "image.tar") as archive:
        content = {name: file.read() for name in archive.getnames() if (file := archive.extractfile(name)) is not None}
    for name, blob in content.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}"

    def blob(reference: dict[str, str]) -> bytes:
        return content["blobs/" + reference["digest"].replace(":", "/")]

    (listed,) = json.loads(content["index.json"])["manifests"]
    assert listed["annotations"]["io.containerd.image.name"] == "example.test/image:1"
    manifest = json.loads(blob(listed))
    described = json.loads(blob(manifest["config"]))
    assert described["config"]["User"] == "65532:65532"
    assert described["config"]["Entrypoint"] == ["/usr/bin/program"]
    assert described["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
    (docker,) = json.loads(content["manifest.json"])
    assert docker["RepoTags"] == ["example.test/image:1"]
    assert {docker["Config"], *docker["Layers"]} <= set(content)

    with tarfile.open(fileobj=io.BytesIO(blob(manifest["layers"][0]))) as layer:
        assert layer.getmember("usr/bin/program").mode == 0o755
        assert layer.getmember("tmp").mode == 0o1777
        assert layer.getmember("opt/tree/link").linkname == "inside/file"
        names = layer.getnames()
        assert names.index("usr") < names.index("usr/bin") < names.index("usr/bin/program")
        assert not any("__pycache__" in name for name in names)
        owners = {(member.uid, member.gid, member.mtime) for member in layer.getmembers()}
        assert owners == {(0, 0, 0)}


def test_same_files_make_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_archive(tmp_path / f"{name}.tar", "example.test/image:1", [_layer(tmp_path / name)], Config())
    assert (tmp_path / "first.tar").read_bytes() == (tmp_path / "second.tar").read_bytes()
