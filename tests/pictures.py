"""Helpers that make image files and read them."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from analyzer import images
from analyzer.card import Card, Resize

NONE = Resize("none")


def card(size=(4, 6), *, resize=NONE, channels="RGB", labels=None):
    count = 1 if channels == "L" else 3
    return Card(
        layout="NCHW",
        size=size,
        channels=channels,
        resize=resize,
        mean=(0.0,) * count,
        std=(1.0,) * count,
        kind="logits",
        labels=labels,
    )


CARD = card()


def gradient(height=4, width=6, channels=3):
    """Values that all differ, so that a swapped axis or channel shows."""
    return np.arange(height * width * channels, dtype=np.uint8).reshape(height, width, channels)


def encoded(picture, format, **options):
    stream = io.BytesIO()
    # Copies, since saving leaves the encoder's settings on an image, for the next format to stumble over.
    if "append_images" in options:
        options["append_images"] = [frame.copy() for frame in options["append_images"]]
    picture.copy().save(stream, format, **options)
    return stream.getvalue()


def png(array=None, **options):
    return encoded(Image.fromarray(gradient() if array is None else array), "PNG", **options)


def png_by_hand(size, depth, colour, rows, *, extra=b""):
    """A PNG of any depth; Pillow writes few of them."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", size[1], size[0], depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def put(folder, *names, data=b"not opened by find"):
    for name in names:
        # As UTF-8 in every locale, so that these tests pass in a C locale too.
        path = folder / os.fsdecode(name.encode("utf-8", "surrogateescape"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def image_of(tmp_path, data, roi=None):
    path = tmp_path / "image.png"
    path.write_bytes(data)
    return images.ImageFile("image.png", path, None, roi)


def read(tmp_path, data, *, card=CARD, roi=None):
    return images.read(image_of(tmp_path, data, roi), card=card)


def refusal(tmp_path, data, **options):
    with pytest.raises(images.ImageError) as e:
        read(tmp_path, data, **options)
    message = str(e.value)
    assert str(tmp_path) not in message
    assert "\n" not in message
    return message


def pairs(listed):
    return [(image.id, image.label) for image in listed]
