from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshgw.api.meta import Key
from meshgw.files import load as load_module
from meshgw.files.load import Loaded, Loader
from meshgw.files.scan import Change, compare, scan

BROKEN = "a: b: c\n"


def config(name: str, value: str = "1", kind: str = "ConfigMap") -> str:
    return f"apiVersion: v1\nkind: {kind}\nmetadata:\n  name: {name}\ndata:\n  value: '{value}'\n"


def wrong(name: str) -> str:
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata: 5\n"


def join(*documents: str) -> str:
    return "---\n".join(documents)


class Folder:
    """A folder whose files get a new time with every write, so that no test depends on the clock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loader = Loader([path])
        self._ages: Iterator[int] = iter(range(1, 1_000_000))

    def write(self, **files: str) -> Loaded:
        for name, text in files.items():
            path = self.path / f"{name}.yaml"
            path.write_text(text)
            age = next(self._ages)
            os.utime(path, (age, age))
        return self.loader.load()

    def remove(self, name: str) -> Loaded:
        (self.path / f"{name}.yaml").unlink()
        return self.loader.load()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def values(loaded: Loaded) -> dict[str, str]:
    found: dict[str, str] = {}
    for (_, key), (resource, _) in loaded.objects.items():
        data: Any = resource
        found[key.name] = data.data["value"]
    return dict(sorted(found.items()))


def changed(loaded: Loaded) -> list[str]:
    return sorted(f"{'-' if resource is None else '+'}{key.name}" for (_, key), resource in loaded.changed.items())


def codes(loaded: Loaded) -> list[tuple[str, str, int]]:
    return [(problem.code, Path(problem.file).stem, problem.line) for problem in loaded.problems]


def retained(loaded: Loaded) -> list[str]:
    return [ref.name for ref in loaded.retained]


def test_a_folder_is_loaded(folder: Folder) -> None:
    loaded = folder.write(a=join(config("x"), config("y")), b=config("z"))
    assert values(loaded) == {"x": "1", "y": "1", "z": "1"}
    assert changed(loaded) == ["+x", "+y", "+z"]
    assert loaded.problems == ()
    resource, origin = loaded.objects["ConfigMap", Key("default", "y")]
    assert resource.key == Key("default", "y")
    assert str(origin) == f"{folder.path / 'a.yaml'}:8"


def test_one_file_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"value": "1"}}')
    assert values(Loader([path]).load()) == {"a": "1"}


def test_standard_input_is_read_once() -> None:
    texts = [config("a").encode()]
    loader = Loader(["-"], read_stdin=texts.pop)
    assert values(loader.load()) == {"a": "1"}
    again = loader.load()
    assert (values(again), changed(again)) == ({"a": "1"}, [])


def test_standard_input_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(config("a").encode())))
    assert values(Loader(["-"]).load()) == {"a": "1"}


def test_an_edit_changes_one_object(folder: Folder) -> None:
    folder.write(a=join(config("x"), config("y")), b=config("z"))
    loaded = folder.write(a=join(config("x"), config("y", "2")))
    assert values(loaded) == {"x": "1", "y": "2", "z": "1"}
    assert changed(loaded) == ["+y"]


def test_moving_a_document_changes_only_its_origin(folder: Folder) -> None:
    folder.write(a=join(config("x"), config("y")))
    loaded = folder.write(a=join(config("y"), "# comment\n" + config("x")))
    assert changed(loaded) == []
    assert loaded.objects["ConfigMap", Key("default", "x")].origin.line == 9


def test_a_removed_document_removes_its_object(folder: Folder) -> None:
    folder.write(a=join(config("x"), config("y")), b=config("z"))
    assert changed(folder.write(a=config("y"))) == ["-x"]
    loaded = folder.remove("b")
    assert (values(loaded), changed(loaded)) == ({"y": "1"}, ["-z"])


def test_broken_yaml_costs_only_its_document(folder: Folder) -> None:
    loaded = folder.write(a=join(config("x"), BROKEN, config("y")))
    assert values(loaded) == {"x": "1", "y": "1"}
    assert codes(loaded) == [("MG9101", "a", 8)]


def test_an_object_stays_while_its_document_is_broken(folder: Folder) -> None:
    folder.write(a=join(config("x"), config("y")))
    loaded = folder.write(a=join(config("x", "2"), config("y") + "  b: c: d\n"))
    assert values(loaded) == {"x": "2", "y": "1"}
    assert retained(loaded) == ["y"]
    assert codes(loaded) == [("MG9101", "a", 14)]
    loaded = folder.write(a=join(config("x", "3"), BROKEN))
    assert (values(loaded), retained(loaded)) == ({"x": "3", "y": "1"}, ["y"])
    loaded = folder.write(a=join(config("x", "3"), config("y", "2")))
    assert (values(loaded), retained(loaded), loaded.problems) == ({"x": "3", "y": "2"}, [], ())


def test_an_object_leaves_when_its_file_parses_without_it(folder: Folder) -> None:
    folder.write(a=join(config("x"), config("y")))
    folder.write(a=join(config("x"), BROKEN))
    loaded = folder.write(a=config("x"))
    assert (values(loaded), changed(loaded), retained(loaded)) == ({"x": "1"}, ["-y"], [])


def test_the_last_good_version_stays_in_force(folder: Folder) -> None:
    folder.write(a=config("x"), b=config("y"))
    loaded = folder.write(a=wrong("x"))
    assert (values(loaded), changed(loaded), retained(loaded)) == ({"x": "1", "y": "1"}, [], ["x"])
    (problem,) = loaded.problems
    assert str(problem) == (
        f"{folder.path / 'a.yaml'}:5: MG9102: ConfigMap default/x: data: Expected `object`, got `int`"
    )
    loaded = folder.write(a=wrong("x") + "immutable: true\n")
    assert (values(loaded), retained(loaded)) == ({"x": "1", "y": "1"}, ["x"])
    loaded = folder.write(a=config("x", "2"))
    assert (values(loaded)["x"], retained(loaded)) == ("2", [])


def test_a_wrong_object_without_a_good_version_is_refused(folder: Folder) -> None:
    loaded = folder.write(a=wrong("x"))
    assert (values(loaded), retained(loaded), [ref.name for ref in loaded.refused]) == ({}, [], ["x"])
    loaded = folder.write(a=config("x"))
    assert (values(loaded), loaded.refused) == ({"x": "1"}, {})


def test_an_object_that_lost_its_name_stays(folder: Folder) -> None:
    folder.write(a=config("x"))
    loaded = folder.write(a=config("[]"))
    assert (values(loaded), retained(loaded)) == ({"x": "1"}, ["x"])


def test_an_object_of_a_version_that_is_not_served_stays(folder: Folder) -> None:
    folder.write(a=config("x"))
    loaded = folder.write(a=config("x").replace("v1", "v2"))
    assert (values(loaded), retained(loaded)) == ({"x": "1"}, ["x"])
    assert loaded.problems[0].field == "apiVersion"


def test_an_object_whose_kind_is_mistyped_stays(folder: Folder) -> None:
    folder.write(a=join(config("x"), config("y")))
    loaded = folder.write(a=join(config("x", kind="ConfigMop"), config("y")))
    assert (values(loaded), retained(loaded)) == ({"x": "1", "y": "1"}, ["x"])
    loaded = folder.write(a=join(config("x", kind="ConfigMop"), config("y", "2")))
    assert (values(loaded), retained(loaded)) == ({"x": "1", "y": "2"}, ["x"])
    loaded = folder.write(a=config("y"))
    assert (values(loaded), retained(loaded)) == ({"y": "1"}, [])


def test_a_namesake_that_was_there_before_keeps_nothing(folder: Folder) -> None:
    claim = config("x", kind="PersistentVolumeClaim")
    folder.write(a=join(config("x"), claim))
    assert values(folder.write(a=claim)) == {}


def test_an_object_that_moved_and_broke_on_the_way_stays(folder: Folder) -> None:
    folder.write(a=config("x"), b=config("y"))
    (folder.path / "a.yaml").unlink()
    loaded = folder.write(b=join(config("y"), wrong("x")))
    assert (values(loaded), retained(loaded)) == ({"x": "1", "y": "1"}, ["x"])


def test_the_first_of_two_definitions_wins(folder: Folder) -> None:
    loaded = folder.write(a=config("x", "a"), b=join(config("y"), config("x", "b")))
    assert values(loaded)["x"] == "a"
    (problem,) = loaded.problems
    assert (problem.code, Path(problem.file).name, problem.line) == ("MG9103", "b.yaml", 8)
    assert problem.message == f"is ignored: {folder.path / 'a.yaml'}:1 defines it first"
    loaded = folder.remove("a")
    assert (values(loaded)["x"], changed(loaded), loaded.problems) == ("b", ["+x"], ())


def test_a_definition_that_appears_in_front_wins(folder: Folder) -> None:
    folder.write(b=config("x", "b"))
    loaded = folder.write(a=config("x", "a"))
    assert values(loaded) == {"x": "a"}
    assert codes(loaded) == [("MG9103", "b", 1)]


def test_the_first_definition_in_a_file_wins(folder: Folder) -> None:
    loaded = folder.write(a=join(config("x", "1"), config("x", "2")))
    assert (values(loaded), codes(loaded)) == ({"x": "1"}, [("MG9103", "a", 8)])
    loaded = folder.write(a=join(wrong("x"), config("x", "2")))
    assert (values(loaded), retained(loaded)) == ({"x": "1"}, ["x"])


def test_a_broken_first_definition_does_not_give_way_to_another(folder: Folder) -> None:
    folder.write(a=config("x", "a"), b=config("x", "b"))
    for text in (wrong("x"), BROKEN):
        loaded = folder.write(a=text)
        assert (values(loaded), retained(loaded)) == ({"x": "a"}, ["x"])


def test_a_definition_that_was_never_good_does_not_hide_a_good_one(folder: Folder) -> None:
    loaded = folder.write(a=wrong("x"), b=config("x", "b"))
    assert values(loaded) == {"x": "b"}
    loaded = folder.write(b=config("x", "b2"))
    assert (values(loaded), retained(loaded)) == ({"x": "b2"}, [])
    loaded = folder.write(b=BROKEN)
    assert (values(loaded), retained(loaded)) == ({"x": "b2"}, ["x"])


def test_paths_are_in_the_order_given(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f.yaml").write_text(config("x", name))
    assert values(Loader([tmp_path / "b", tmp_path / "a"]).load()) == {"x": "b"}
    assert values(Loader([tmp_path / "a", tmp_path / "b"]).load()) == {"x": "a"}
    assert values(Loader([tmp_path]).load()) == {"x": "a"}


def test_an_unknown_kind_is_reported_once(folder: Folder) -> None:
    deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n"
    loaded = folder.write(a=config("x"), b=join(config("y"), deployment, deployment), c=deployment)
    (problem,) = loaded.problems
    assert (problem.code, Path(problem.file).name, problem.line) == ("MG9104", "b.yaml", 8)
    assert problem.message == "kind Deployment of apps/v1 is unknown; 3 documents are ignored"
    folder.remove("b")
    loaded = folder.write(a=config("x"))
    assert codes(loaded) == [("MG9104", "c", 1)]
    assert loaded.problems[0].message.endswith("1 document is ignored")
    assert folder.remove("c").problems == ()


def test_an_unknown_field_is_reported_and_ignored(folder: Folder) -> None:
    loaded = folder.write(a=config("x") + "extra: 1\n")
    assert values(loaded) == {"x": "1"}
    assert codes(loaded) == [("MG9105", "a", 7)]


def test_an_unreadable_file_keeps_its_objects(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write(a=join(config("x"), config("y")), b=config("z"))
    read = load_module._content

    def refuse(path: str) -> bytes:
        if path.endswith("a.yaml"):
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(load_module, "_content", refuse)
    loaded = folder.write(a=config("x", "2"), b=config("z", "2"), c=config("w"))
    assert values(loaded) == {"w": "1", "x": "1", "y": "1", "z": "2"}
    assert retained(loaded) == ["x", "y"]
    assert codes(loaded) == [("MG9106", "a", 0)]
    assert folder.loader.load().problems[0].message == "permission denied"
    monkeypatch.undo()
    loaded = folder.loader.load()
    assert (values(loaded), retained(loaded), loaded.problems) == ({"w": "1", "x": "2", "z": "2"}, [], ())


def test_a_file_that_could_never_be_read_holds_nothing(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "MAX_FILE_SIZE", 10)
    loaded = folder.write(a=config("x"))
    assert (values(loaded), codes(loaded)) == ({}, [("MG9106", "a", 0)])


def test_a_file_of_many_pieces_is_read_whole(folder: Folder) -> None:
    filler = "# more\n" * 30_000
    loaded = folder.write(a=config("x") + f"---\n{filler}" + config("y"))
    assert (values(loaded), codes(loaded)) == ({"x": "1", "y": "1"}, [])


def test_a_folder_that_vanishes_keeps_its_objects(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.mkdir()
    folder = Folder(path)
    folder.write(a=config("x"))
    path.rename(tmp_path / "away")
    loaded = folder.loader.load()
    assert (values(loaded), changed(loaded), retained(loaded)) == ({"x": "1"}, [], ["x"])
    assert codes(loaded) == [("MG9106", "in", 0)]
    (tmp_path / "away").rename(path)
    loaded = folder.loader.load()
    assert (values(loaded), retained(loaded), loaded.problems) == ({"x": "1"}, [], ())


def test_a_path_that_never_was_is_a_problem(tmp_path: Path) -> None:
    loaded = Loader([tmp_path / "missing"]).load()
    assert (dict(loaded.objects), codes(loaded)) == ({}, [("MG9106", "missing", 0)])


def test_only_changed_files_are_read_and_only_changed_documents_decoded(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write(**{f"f{number}": config(f"x{number}") for number in range(50)})
    folder.write(big=join(*(config(f"y{number}") for number in range(200))))
    opened: list[str] = []
    read = load_module._content
    monkeypatch.setattr(load_module, "_content", lambda path: opened.append(Path(path).stem) or read(path))
    before = folder.loader.decoded
    assert before == 250
    loaded = folder.write(f7=config("x7", "2"))
    assert (opened, folder.loader.decoded - before, changed(loaded)) == (["f7"], 1, ["+x7"])
    documents = [config(f"y{number}", "2" if number == 100 else "1") for number in range(200)]
    loaded = folder.write(big=join(config("first"), *documents))
    assert (opened, folder.loader.decoded - before) == (["f7", "big"], 3)
    assert changed(loaded) == ["+first", "+y100"]
    assert changed(folder.loader.load()) == []
    assert opened == ["f7", "big"]


def test_a_touched_file_is_not_decoded(folder: Folder) -> None:
    folder.write(a=config("x"))
    loaded = folder.write(a=config("x"))
    assert (changed(loaded), folder.loader.decoded) == ([], 1)


def test_a_young_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(config("x"))
    loader = Loader([tmp_path])
    found = scan([str(tmp_path)])
    assert values(loader.load(found)) == {"x": "1"}
    path.write_text(config("x", "2"))
    # The same scan stands for a change within one step of the file system's clock.
    assert values(loader.load(found)) == {"x": "2"}


def test_what_is_in_force_is_a_view_that_only_loads_can_change(folder: Folder) -> None:
    first = folder.write(a=config("x"))
    folder.write(a=config("x", "2"), b=config("y"))
    assert values(first) == {"x": "2", "y": "1"}
    assert not hasattr(first.objects, "pop")


def test_a_change_since_the_last_load_costs_its_own_files(folder: Folder) -> None:
    folder.write(a=config("x"), b=config("y"), c=config("z"))
    before = scan([str(folder.path)])
    folder.loader.load(before)
    os.utime(folder.path / "b.yaml", (1, 10_000))
    (folder.path / "c.yaml").unlink()
    now = scan([str(folder.path)])
    change = compare(now, before)
    assert {Path(name).stem for name in change.files} == {"b", "c"}
    # That a file is looked at only if the change names it shows in what a change without files does.
    assert changed(folder.loader.load(Change(before, before))) == []
    assert changed(folder.loader.load(change)) == ["-z"]


def test_a_change_since_some_other_look_is_not_trusted(folder: Folder) -> None:
    folder.write(a=config("x"))
    elsewhere = scan([str(folder.path)])
    (folder.path / "b.yaml").write_text(config("y"))
    loaded = folder.loader.load(Change(scan([str(folder.path)]), elsewhere))
    assert values(loaded) == {"x": "1", "y": "1"}


def test_a_young_file_is_read_again_whatever_the_change_says(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(config("x"))
    loader = Loader([tmp_path])
    found = scan([str(tmp_path)])
    loader.load(found)
    path.write_text(config("x", "2"))
    assert values(loader.load(Change(found, found))) == {"x": "2"}


def test_a_file_that_could_not_be_read_is_tried_again_whatever_the_change_says(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: str) -> bytes:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(load_module, "_content", refuse)
        folder.write(a=config("x"))
        found = scan([str(folder.path)])
        assert values(folder.loader.load(found)) == {}
    assert values(folder.loader.load(Change(found, found))) == {"x": "1"}


def test_a_bomb_costs_only_its_document(folder: Folder) -> None:
    lines = ["n0: &n0 {x: 1}"]
    lines += [f"n{number}: &n{number} [{','.join([f'*n{number - 1}'] * 10)}]" for number in range(1, 30)]
    loaded = folder.write(a=join(config("x"), "\n".join(lines) + "\n", config("y"), "[" * 100_000 + "\n", config("z")))
    assert values(loaded) == {"x": "1", "y": "1", "z": "1"}
    assert [problem.message for problem in loaded.problems] == [
        "its aliases expand to too much",
        "is nested more than 100 levels deep",
    ]


def test_anchors_stay_within_their_document(folder: Folder) -> None:
    loaded = folder.write(a=join(config("x") + "extra: &e 1\n", config("y") + "extra: *e\n"))
    assert values(loaded) == {"x": "1"}
