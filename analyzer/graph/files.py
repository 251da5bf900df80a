"""Reading a model file as untrusted bytes: its format, its protobuf and its hash. Nothing is ever unpickled."""

import hashlib
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from analyzer.errors import InputError

LARGEST = 2**31 - 1  # protobuf's own limit; larger models keep their weights in external files

_AT_START = (
    (b"PK\x03\x04", "a zip archive (such as .pt, .npz or .keras)"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (such as Keras .h5)"),
    (b"\x1f\x8b", "a gzip file"),
    (b"7z\xbc\xaf", "a 7-zip archive"),
    (b"GGUF", "a GGUF file"),
    *((bytes([0x80, protocol]), "a pickle (such as .pt or .pkl)") for protocol in range(2, 6)),
)
_AT_FOUR = ((b"TFL3", "a TensorFlow Lite model"), (b"ORTM", "an ONNX Runtime .ort model"))


def read(path: Path) -> onnx.ModelProto:
    """Parse `path` without loading external data. Raises InputError naming the file and what it looks like instead."""
    content = _content(path)
    foreign = looks_like(content)
    if foreign is not None:
        raise InputError(f"{path}: this is {foreign}, not ONNX; export the network to ONNX in its own framework first")
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(content)
        _refuse_broken_text(model)
    except (DecodeError, UnicodeDecodeError):
        raise InputError(f"{path}: not an ONNX model, or a truncated one; copy or export it again") from None
    if not model.HasField("graph") or not model.graph.node or not model.graph.output or not model.opset_import:
        raise InputError(f"{path}: no complete ONNX graph in it (truncated, or not ONNX); copy or export it again")
    return model


def looks_like(content: bytes) -> str | None:
    """What the first bytes say the file is, where that is a known format other than ONNX."""
    for magic, name in _AT_START:
        if content.startswith(magic):
            return name
    for magic, name in _AT_FOUR:
        if content[4:8] == magic:
            return name
    if content[8:9] == b"{" and int.from_bytes(content[:8], "little") < len(content):
        return "a safetensors file"
    if content[:1] in (b"{", b"<") or content.startswith(b"version https://git-lfs"):
        return "a text file (a Git LFS pointer, JSON or HTML?)"
    return None


def _refuse_broken_text(message: Any) -> None:
    """Raise UnicodeDecodeError for any string that is not UTF-8; protobuf itself does only when it is read."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            for text in (value,) if isinstance(value, str | bytes) else value:
                if isinstance(text, bytes):
                    text.decode()
        elif field.type == field.TYPE_MESSAGE:
            for inner in value if isinstance(value, Sequence) else (value,):
                _refuse_broken_text(inner)


def _content(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path}: not a file; give the .onnx file itself")
        if status.st_size == 0:
            raise InputError(f"{path}: the file is empty; copy or export it again")
        if status.st_size > LARGEST:
            raise InputError(f"{path}: larger than 2 GiB; export it with its weights as external data")
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such model") from None
    except OSError as e:
        raise InputError(f"{path}: cannot be read: {e.strerror or e}") from e


def sha256(model: Path) -> str:
    """Hex SHA-256 of the model's graph and weights, whatever its file is called.

    Without external data it is that of the file. With external data it is that of the file's hash followed by the
    location and hash of each external file, sorted by location. Raises InputError like `read`, and where an external
    file is missing or outside the model's folder.
    """
    from analyzer.graph import external

    files = external.locate(read(model), model).files
    own = _hash(model)
    if not files:
        return own.hex()
    total = hashlib.sha256(own)
    for location in sorted(files):
        name = location.encode("utf-8", "surrogatepass")
        total.update(len(name).to_bytes(8, "little") + name + _hash(files[location]))
    return total.hexdigest()


def files_of(model: Path) -> dict[str, Path]:
    """All files of a model: its own under its name, then external data, by where they lie beside it.

    Raises InputError like `sha256`.
    """
    from analyzer.graph import external

    return {model.name: model, **external.locate(read(model), model).files}


def _hash(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as e:
        raise InputError(f"{path}: cannot be read: {e.strerror or e}") from e
