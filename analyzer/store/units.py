"""One image's arrays as one file: an ordinary .npz whose archive comment is a digest of all that precedes it."""

import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from analyzer.errors import InputError
from analyzer.store import files, schema
from analyzer.store.documents import Coordinates

_DIGEST = 64


def unit_path(run: Path, key: str) -> Path:
    """Where the unit `key` lies in a run. Raises InputError for a key that is no lower-case hex, such as a path."""
    if not re.fullmatch("[0-9a-f]{1,64}", key):
        raise InputError(f"{run}: {key[:70]!a} is no unit's key; expected up to 64 hex digits")
    return run / "units" / f"{key}.npz"


def pack(key: str, arrays: Mapping[str, schema.Array]) -> bytes:
    """The bytes of a unit: the same arrays give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            # A ZipInfo of one's own carries the format's first date instead of the present one.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        archive.comment = b"0" * _DIGEST
    body = buffer.getvalue()[:-_DIGEST]
    return body + _digest(key, body)


def unpack(key: str, data: bytes, coordinates: Coordinates) -> dict[str, schema.Array]:
    """The arrays of a unit, checked against the schema. Raises ValueError saying what is wrong with it.

    A CRC for each member would miss a bit flipped in the archive's own headers, and a unit under another's name;
    the digest finds both.
    """
    if not data:
        raise ValueError("it is empty")
    if data[-_DIGEST:] != _digest(key, data[:-_DIGEST]):
        raise ValueError("its content does not match its checksum")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, EOFError, OSError) as e:
        raise ValueError(f"it is no .npz archive: {e}") from e
    return schema.checked(arrays, coordinates)


def read(run: Path, key: str, coordinates: Coordinates) -> dict[str, schema.Array]:
    """The arrays of a stored unit. Raises ValueError when it is damaged, FileNotFoundError when there is none."""
    path = unit_path(run, key)
    try:
        data = files.read_bytes(path)
    except FileNotFoundError:
        raise
    except OSError as e:
        raise ValueError(f"it cannot be read: {e.strerror}") from e
    return unpack(key, data, coordinates)


def read_if_whole(run: Path, key: str, coordinates: Coordinates) -> dict[str, schema.Array] | None:
    """The arrays of a stored unit; None when there is none, or a damaged one."""
    try:
        return read(run, key, coordinates)
    except (ValueError, FileNotFoundError):
        return None


def _digest(key: str, body: bytes) -> bytes:
    return hashlib.sha256(key.encode() + body).hexdigest().encode()
