"""Files as facts of the pipeline: batches of changed objects, and what is wrong with the files as findings."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from meshgw import names
from meshgw.api import gateway as api
from meshgw.api.meta import Key, ObjectMeta, ObjectRef
from meshgw.api.scalars import printable
from meshgw.control import Batch
from meshgw.files.load import Loader
from meshgw.files.scan import Change
from meshgw.files.source import FileProblem
from meshgw.ir.finding import Finding
from meshgw.pipeline import list_facts, list_kinds


class FileFacts:
    """The objects of some files as facts: `read` looks at the files, `take` returns what changed since."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.problems: tuple[Finding, ...] = ()
        self.moved = False
        """Whether the last read changed the problems."""
        self._loader = Loader(paths, registry=list_kinds())
        self._tables = list_facts()
        self._pending: dict[tuple[str, Key], Any] = {}
        self._refused: dict[ObjectRef, Any] = {}
        for name in (names.CLASS_INGRESS, names.CLASS_EGRESS, names.CLASS_WAYPOINT):
            self._pending["GatewayClass", Key("", name)] = _standard_class(name)

    def read(self, change: Change | None = None) -> None:
        """Look at the files, or only at those of a change since the last look; I/O errors become problems."""
        loaded = self._loader.load(change)
        self._pending.update(loaded.changed)
        self._stand_in({ref: row for ref, row in loaded.refused.items() if row is not None})
        problems = tuple(_finding(problem) for problem in loaded.problems)
        self.moved = problems != self.problems
        self.problems = problems

    @property
    def removing(self) -> bool:
        """Whether objects are gone from the files and not taken yet."""
        return None in self._pending.values()

    def take(self, *, removals: bool = True) -> Batch:
        """Return the changes as a batch for the pipeline, and forget them; what is gone only with `removals`."""
        batch: Batch = {}
        pending, self._pending = self._pending, {}
        for (kind, key), row in pending.items():
            table = self._tables.get(kind)
            if table is None:
                continue
            if row is None and not removals:
                self._pending[kind, key] = None
                continue
            if row is None and kind == "GatewayClass" and key.name in _STANDARD:
                row = _standard_class(key.name)  # noqa: PLW2901 - deleting the declaration restores the default
            batch.setdefault(table, {})[key] = row
        return batch

    def _stand_in(self, refused: dict[ObjectRef, Any]) -> None:
        """Put in the place of each policy that never could be read what stands for it (fail closed)."""
        for ref, row in refused.items():
            if self._refused.get(ref) != row:
                self._pending[ref.kind, row.key] = row
        for ref in self._refused.keys() - refused.keys():
            self._pending.setdefault((ref.kind, self._refused[ref].key), None)
        self._refused = refused


_STANDARD = frozenset({names.CLASS_INGRESS, names.CLASS_EGRESS, names.CLASS_WAYPOINT})


def _standard_class(name: str) -> api.GatewayClass:
    """Return a class that exists without being declared."""
    return api.GatewayClass(
        metadata=ObjectMeta(name=name), spec=api.GatewayClassSpec(controller_name=names.CONTROLLER_NAME)
    )


def _finding(problem: FileProblem) -> Finding:
    """Return a problem as one line, whatever a refused document says of itself."""
    ref = problem.object or ObjectRef("File", "", problem.file)
    where = f"{problem.file}:{problem.line}: " if problem.line else f"{problem.file}: "
    return Finding(
        code=problem.code,
        object=ObjectRef(*map(printable, ref)),
        field=printable(problem.field or ""),
        message=printable(where + problem.message),
    )


def read_text(text: str) -> tuple[Batch, tuple[Finding, ...]]:
    """Return the facts and problems of YAML text, as if it were the only file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "in.yaml")
        path.write_text(text)
        facts = FileFacts([str(path)])
        facts.read()
        prefix = f"{folder}/"
        problems = tuple(_without(prefix, problem) for problem in facts.problems)
        return facts.take(), problems


def _without(prefix: str, finding: Finding) -> Finding:
    name = finding.object.name.removeprefix(prefix)
    return Finding(
        code=finding.code,
        object=finding.object._replace(name=name),
        field=finding.field,
        message=finding.message.replace(prefix, ""),
    )
