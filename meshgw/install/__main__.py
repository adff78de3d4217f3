"""`python -m meshgw.install [manifests]`: write the generated manifests; what `make manifests` runs."""

from __future__ import annotations

import sys
from pathlib import Path

from meshgw.install.generate import CRDS_IN_CHART, generate
from meshgw.pipeline import list_kinds


def main(folder: Path) -> None:
    """Write the generated files below a folder, and remove copies of CRDs that are gone."""
    sources = {
        str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.suffix in {".yaml", ".md"}
    }
    texts = generate(list_kinds().kinds, sources)
    for path in sources:
        if path.startswith(CRDS_IN_CHART) and path not in texts:
            (folder / path).unlink()
    for path, text in texts.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_text() != text:
            target.write_text(text)
            print(f"wrote {target}")  # noqa: T201 - this is the output


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "manifests"))
