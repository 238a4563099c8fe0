"""The offline catalog `model_specs/`: one JSON file a model, found by name through one index.

To add a model: a file `model_specs/<owner>/<name>.json` (CONTRIBUTING.md says what goes in), then
`python -m kvplan.sources.catalog` writes the index anew.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvplan.core.errors import KvplanError
from kvplan.core.model import ModelSpec, Source
from kvplan.sources.config import spec_from_raw
from kvplan.sources.json_file import MAX_CONFIG_BYTES, read_json_file

INDEX = "index.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """One file of the catalog: the repository's own keys, and what kvplan knows besides."""

    id: str
    config: Mapping[str, Any]
    """The keys of the repository's config.json, or of its params.json."""
    about: Mapping[str, Any]
    """The object `kvplan`: source, revision, aliases, expect …"""

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names of the same architecture."""
        return tuple(self.about.get("aliases", ()))


def root() -> Path:
    """The catalog's folder: packed into the package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    packed = package / "model_specs"
    return packed if packed.is_dir() else package.parent / "model_specs"


def find(name: str) -> tuple[str, str] | None:
    """(id as the user means it, file) of a catalog name or alias, whatever its case; None where there is none."""
    entry = _index().get(name.strip().lower())
    return (entry[0], entry[1]) if entry else None


def suggest(name: str) -> list[str]:
    """Catalog names that look like `name`, for "did you mean"."""
    import difflib

    index = _index()
    close = difflib.get_close_matches(name.strip().lower(), index, n=3, cutoff=0.6)
    return list(dict.fromkeys(index[key][0] for key in close))


def load(name: str, overrides: Mapping[str, Any] | None = None) -> ModelSpec | None:
    """The model of that catalog name, None where the catalog does not have it."""
    found = find(name)
    if found is None:
        return None
    return spec_of(read_entry(root() / found[1]), id=found[0], overrides=overrides)


def spec_of(entry: CatalogEntry, *, id: str | None = None, overrides: Mapping[str, Any] | None = None) -> ModelSpec:
    """The model of one entry; an alias's own id is kept, the entry it stands on is named in a note."""
    notes = () if id in (None, entry.id) else (f"same architecture as `{entry.id}` in the catalog",)
    source = Source(
        kind="catalog",
        location=str(entry.about.get("source", "")),
        revision=entry.about.get("revision"),
        notes=notes,
    )
    return spec_from_raw(
        entry.config, id=id or entry.id, source=source, overrides=overrides, completed=entry.about.get("set")
    )


def names() -> list[str]:
    """Every name that the catalog answers to, as it is written."""
    return sorted({entry[0] for entry in _index().values()}, key=str.lower)


def entries() -> Iterator[CatalogEntry]:
    """Every entry, in the order of its id."""
    files = sorted({file for _, file in _index().values()}, key=str.lower)
    return (read_entry(root() / file) for file in files)


def read_entry(path: Path) -> CatalogEntry:
    """One file of the catalog."""
    config = read_json_file(path, what=path.name, max_bytes=MAX_CONFIG_BYTES)
    about = config.pop("kvplan", {})
    return CatalogEntry(id=f"{path.parent.name}/{path.stem}", config=config, about=about)


def _index() -> dict[str, list[str]]:
    return json.loads((root() / INDEX).read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def build_index() -> dict[str, list[str]]:
    """{lower-cased name: [name, file]}: full ids first, then aliases, then short names that only one model has.

    Raises KvplanError where two entries claim one name.
    """
    index: dict[str, list[str]] = {}
    short: dict[str, list[list[str]]] = {}
    found = [(read_entry(path), path) for path in sorted(root().glob("*/*.json"))]
    for position in ("id", "aliases"):
        for entry, path in found:
            file = f"{path.parent.name}/{path.name}"
            for name in (entry.id,) if position == "id" else entry.aliases:
                if index.setdefault(name.lower(), [name, file]) != [name, file]:
                    raise KvplanError(f"`{name}` is claimed twice in the catalog", hint=f"see {file}")
                short.setdefault(name.rpartition("/")[2].lower(), []).append([name, file])
    for name, owners in short.items():
        if len({file for _, file in owners}) == 1:
            index.setdefault(name, owners[0])
    return dict(sorted(index.items()))


def index_text() -> str:
    """The index as it stands on disk: one name a line, so that a change of one model is a change of its lines."""
    lines = (f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in build_index().items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    """Write the index anew."""
    (root() / INDEX).write_text(index_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
