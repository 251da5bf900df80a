"""A run's documents say whether they still are what was written: each has a checksum of all else in it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analyzer.store import files

CHECKSUM, RESULTS = "checksum", "results"
"""Keys of a document: SHA-256 of the rest of it; in summary.json, that of results.nc."""

MISMATCH = "its content does not match its checksum"
_BLOCK = 2**20  # bytes read in one go


def of_document(document: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a document, its own checksum left out: sorted keys, no blanks, pure ASCII."""
    rest = {key: value for key, value in document.items() if key != CHECKSUM}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def of_file(path: Path) -> str:
    """SHA-256 of a file, a block at a time. Raises OSError."""
    digest = hashlib.sha256()
    files.refuse_irregular(path)
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document of JSON types with its checksum, as it is written."""
    return {**document, CHECKSUM: of_document(document)}


def opened(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document without the checksums, as it is used."""
    return {key: value for key, value in document.items() if key not in (CHECKSUM, RESULTS)}


def is_sealed(document: Mapping[str, Any]) -> bool:
    """Whether the document has a checksum, right or wrong; runs of earlier versions have none."""
    return CHECKSUM in document


def fault(document: Mapping[str, Any]) -> str:
    """What is wrong with a sealed document; empty where its checksum is right, or where it has none."""
    return MISMATCH if is_sealed(document) and document[CHECKSUM] != of_document(document) else ""
