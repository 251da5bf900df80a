"""A hypothesis strategy for image files: good ones whose headers say something else, checksums put right."""

import struct
import zlib
from typing import Any

from documents import damaged
from hypothesis import strategies as st
from test_images_hostile import SAMPLES

AWKWARD = [0, 1, 2, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1]


@st.composite
def chunks(draw: Any, data: bytes) -> bytes:
    """A PNG of which chunks are changed, left out, doubled or reordered; their checksums are right again."""
    found, at = [], 8
    while at + 12 <= len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    for _ in range(draw(st.integers(1, 3))):
        number = draw(st.integers(0, len(found) - 1))
        name, content = found[number]
        how = draw(st.sampled_from(["number", "byte", "remove", "double", "swap", "rename", "new"]))
        if how == "number" and len(content) >= 4:
            place = 4 * draw(st.integers(0, min(len(content) // 4 - 1, 4)))
            content = content[:place] + struct.pack(">I", draw(st.sampled_from(AWKWARD))) + content[place + 4 :]
            found[number] = name, content
        elif how == "byte" and content:
            place = draw(st.integers(0, min(len(content), 40) - 1))
            found[number] = name, content[:place] + bytes([draw(st.integers(0, 255))]) + content[place + 1 :]
        elif how == "remove" and len(found) > 1:
            del found[number]
        elif how == "double":
            found.insert(number, found[number])
        elif how == "swap":
            found[number], found[0] = found[0], found[number]
        elif how == "rename":
            found[number] = (
                draw(st.sampled_from([b"PLTE", b"tRNS", b"eXIf", b"iCCP", b"fdAT", b"zTXt", b"IDAT"])),
                content,
            )
        else:
            kind = draw(st.sampled_from([b"acTL", b"fcTL", b"iTXt", b"eXIf", b"iCCP", b"tRNS", b"gAMA"]))
            found.insert(number, (kind, draw(st.binary(max_size=40))))
    parts = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in found]
    return data[:8] + b"".join(parts)


@st.composite
def fields(draw: Any, data: bytes) -> bytes:
    """A file in whose first bytes a number of 1, 2 or 4 bytes is another one, in either order."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.sampled_from([1, 2, 4]))
        place = draw(st.integers(0, max(0, min(len(data), draw(st.sampled_from([32, 128, 4096]))) - size)))
        number = draw(st.sampled_from(AWKWARD)) % 256**size
        changed[place : place + size] = number.to_bytes(size, draw(st.sampled_from(["big", "little"])))
    return bytes(changed)


@st.composite
def files(draw: Any) -> bytes:
    """The bytes of an image that says something else than it holds."""
    data = draw(st.sampled_from(SAMPLES))
    if data.startswith(b"\x89PNG") and draw(st.booleans()):
        return draw(chunks(data))
    made = draw(fields(data))
    return draw(damaged(made)) if draw(st.integers(0, 3)) == 0 else made
