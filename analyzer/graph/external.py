"""External data: weights in files beside the model. Their locations are untrusted, and must stay in its folder."""

import dataclasses
import os
import stat
from pathlib import Path, PurePosixPath, PureWindowsPath

from onnx import ModelProto, TensorProto

from analyzer.errors import InputError
from analyzer.graph import walk


@dataclasses.dataclass(frozen=True)
class Located:
    """External files of one model: location as written -> real file; `notes` are plain sentences for the user."""

    files: dict[str, Path]
    notes: tuple[str, ...]


def locate(model: ModelProto, path: Path) -> Located:
    """Find and check all external data of `model`, read from `path`, without reading any of it.

    Raises InputError for a location that is absolute, climbs with "..", is an in-memory address, leaves the model's
    folder through a symbolic link, is missing or no plain file, and for offsets and lengths that do not fit. Links
    within the cache that the model itself is linked into (snapshots beside blobs) are followed.
    """
    files: dict[str, Path] = {}
    sizes: dict[str, int] = {}
    notes = []
    for tensor in walk.tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if len(entries) != len(tensor.external_data):
            raise InputError(f"{path}: external data of tensor {tensor.name!r:.80} names a key twice; export it again")
        location = entries.get("location", "")
        if location not in files:
            files[location] = _real(location, path, tensor.name)
            status = files[location].stat()
            sizes[location] = status.st_size
            if status.st_nlink > 1:
                notes.append(f"External data {location} is a hard link: {status.st_nlink} names share its content.")
        _check_range(entries, tensor, sizes[location], path)
    return Located(files, tuple(notes))


def relocate(model: ModelProto, located: Located, path: Path) -> Path:
    """Rewrite the locations of `model` to real files below one folder, and return that folder.

    The runtime refuses links that leave the folder it is given, as those of a model cache do.
    """
    if not located.files:
        return path.absolute().parent
    folder = Path(os.path.commonpath([file.parent for file in located.files.values()]))
    for tensor in walk.tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = located.files[entry.value].relative_to(folder).as_posix()
    return folder


def _real(location: str, path: Path, tensor: str) -> Path:
    what = f"{path}: external data {location!r:.200} of tensor {tensor!r:.80}"
    mend = "export the model again with its data beside it"
    if not location:
        raise InputError(f"{path}: tensor {tensor!r:.80} is external but names no file; {mend}")
    if "_ORT_MEM_ADDR_" in location:
        raise InputError(f"{what} is an address in memory, not a file; refused")
    absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor
    if absolute or "\0" in location or ".." in PureWindowsPath(location).parts:
        raise InputError(f"{what} is not a plain path below the model's folder; {mend}")
    folder = path.absolute().parent
    try:
        real = (folder / location).resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError):
        raise InputError(f"{what} is missing; put it beside the model, or {mend}") from None
    if not any(real.is_relative_to(root) for root in _roots(path)):
        raise InputError(f"{what} is a link that leads out of the model's folder; copy the file itself there")
    if not stat.S_ISREG(mode):
        raise InputError(f"{what} is not a plain file; {mend}")
    return real


def _roots(path: Path) -> list[Path]:
    """Folders that external data may really lie in."""
    folder = path.absolute().parent.resolve()
    roots = [folder]
    for parent in folder.parents:
        if parent.name == "snapshots" and (parent.parent / "blobs").is_dir():
            roots.append(parent.parent / "blobs")
    return roots


def _check_range(entries: dict[str, str], tensor: TensorProto, available: int, path: Path) -> None:
    what = f"{path}: external data {entries['location']!r:.200} of tensor {tensor.name!r:.80}"
    offset, length = entries.get("offset") or "0", entries.get("length") or None
    if not all(text is None or (text.isascii() and text.isdigit() and len(text) < 20) for text in (offset, length)):
        raise InputError(f"{what} has an offset or length that is no whole number; export the model again")
    needed = walk.size_of(tensor.data_type, tensor.dims)
    if length is not None and int(length) != needed:
        raise InputError(f"{what} declares {length} bytes where its shape needs {needed}; export the model again")
    if int(offset) + needed > available:
        raise InputError(
            f"{what} ends at byte {int(offset) + needed} of a file of {available} bytes; copy or export it again"
        )
