from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from meshgw.files.scan import compare, is_unsettled, normalise, scan


def names(path: Path) -> list[str]:
    return sorted(Path(name).relative_to(path).as_posix() for name in scan([str(path)]).files)


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_directory_is_searched_for_yaml_and_json(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yml", "c.json", "d.txt", "sub/deep/e.yaml", ".hidden.yaml", ".git/f.yaml"):
        write(tmp_path / name)
    assert names(tmp_path) == ["a.yaml", "b.yml", "c.json", "sub/deep/e.yaml"]


def test_a_directory_may_be_called_like_a_file(tmp_path: Path) -> None:
    write(tmp_path / "x.yaml" / "a.yaml")
    assert names(tmp_path) == ["x.yaml/a.yaml"]


def test_a_file_may_have_any_name(tmp_path: Path) -> None:
    path = str(write(tmp_path / "routes.txt"))
    assert list(scan([path, path]).files) == [path]


def test_standard_input_is_a_file_that_never_changes() -> None:
    assert scan(["-"]) == scan(["-"])
    assert list(scan(["-"]).files) == ["-"]


def test_a_changed_file_has_another_signature(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "1")
    before = scan([str(tmp_path)])
    assert not scan([str(tmp_path)]).differs(before)
    os.utime(path, ns=(1, 1))
    assert scan([str(tmp_path)]).differs(before)


def test_a_replaced_file_has_another_signature(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "1")
    os.utime(path, ns=(1, 1))
    before = scan([str(tmp_path)])
    other = write(tmp_path / "b", "2")
    os.utime(other, ns=(1, 1))
    other.replace(path)
    assert scan([str(tmp_path)]).differs(before)


def test_a_mounted_config_map_is_seen_once_and_its_swap_noticed(tmp_path: Path) -> None:
    write(tmp_path / "..1" / "a.yaml", "1")
    write(tmp_path / "..2" / "a.yaml", "2")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    before = scan([str(tmp_path)])
    assert names(tmp_path) == ["a.yaml"]
    (tmp_path / "new").symlink_to("..2")
    (tmp_path / "new").replace(tmp_path / "..data")
    assert scan([str(tmp_path)]).differs(before)


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    write(tmp_path / "sub" / "a.yaml")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    assert names(tmp_path) == ["sub/a.yaml"]


def test_what_cannot_be_looked_at_is_an_error(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "lost.yaml").symlink_to("nowhere")
    found = scan([missing, str(tmp_path / "pipe"), str(tmp_path)])
    assert found.files == {}
    assert found.errors == {
        missing: "no such file or directory",
        str(tmp_path / "pipe"): "is neither a file nor a directory",
        str(tmp_path / "lost.yaml"): "no such file or directory",
    }


def test_a_pipe_in_a_directory_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    assert scan([str(tmp_path)]).files == {}


def test_a_directory_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "sub" / "a.yaml")
    list_directory = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied")
        return list_directory(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert scan([str(tmp_path)]).errors == {str(tmp_path / "sub"): "permission denied"}


def test_an_entry_that_cannot_be_looked_at_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to("a.yaml")
    (error,) = scan([str(tmp_path)]).errors.values()
    assert "symbolic links" in error


def test_a_young_file_is_unsettled(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml")
    assert scan([str(tmp_path)]).unsettled
    os.utime(path, ns=(1, 1))
    assert not scan([str(tmp_path)]).unsettled
    assert is_unsettled(time.time_ns(), time.time_ns())


def test_paths_are_normalised() -> None:
    assert normalise(["./a/", Path("b"), "-"]) == ("a", "b", "-")


def test_a_comparison_names_what_appeared_vanished_and_changed(tmp_path: Path) -> None:
    same, other, gone = (write(tmp_path / f"{name}.yaml", "1") for name in ("same", "other", "gone"))
    before = scan([str(tmp_path)])
    os.utime(other, ns=(1, 1))
    gone.unlink()
    new = write(tmp_path / "new.yaml", "1")
    now = scan([str(tmp_path)])
    assert compare(now, before) == (now, before, {str(other), str(gone), str(new)})
    assert compare(now, None).files == {str(same), str(other), str(new)}
