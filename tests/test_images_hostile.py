"""Images that are damaged or hostile."""

import io
import os
import struct
import warnings
import zlib
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import CARD, card, encoded, image_of, png, png_by_hand, read, refusal
from PIL import Image, ImageFile

from analyzer import images
from analyzer.card import Resize
from analyzer.images import files, pixels

# ------------------------------------------------------------------ read: bad files


@pytest.mark.parametrize(
    "data",
    [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n", b"<svg/>", b"\0" * 100, b"x"],
    ids=["eps", "svg", "nul", "x"],
)
def test_other_formats_are_refused(tmp_path, data):
    assert refusal(tmp_path, data) == "not an image in one of the formats PNG, JPEG, PPM, BMP, GIF, TIFF, WEBP"


def test_format_known_to_pillow_but_not_allowed(tmp_path):
    assert "not an image in one of the formats" in refusal(tmp_path, encoded(Image.new("RGB", (6, 4)), "TGA"))
    assert "not an image in one of the formats" in refusal(tmp_path, encoded(Image.new("RGB", (6, 4)), "ICO"))


def test_empty_file(tmp_path):
    assert refusal(tmp_path, b"") == "empty file"


@pytest.mark.parametrize("format", ["PNG", "JPEG", "PPM", "BMP", "TIFF", "GIF", "WEBP"])
def test_truncated(tmp_path, format):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), format)
    read(tmp_path, data, card=card((32, 32)))
    for share in (0.1, 0.5, 0.9):
        refusal(tmp_path, data[: int(len(data) * share)], card=card((32, 32)))


@pytest.mark.parametrize("make", ["gone", "folder", "fifo"])
def test_file_that_changed_since_it_was_found(tmp_path, make):
    path = tmp_path / "x.png"
    if make == "folder":
        path.mkdir()
    elif make == "fifo":
        os.mkfifo(path)
    with pytest.raises(images.ImageError, match="cannot be read") as e:
        images.read(images.ImageFile("x.png", path, None), card=CARD)
    assert str(tmp_path) not in str(e.value)


def test_file_above_the_limit_is_not_read(tmp_path):
    image = image_of(tmp_path, png())
    os.truncate(image.path, files.MAX_BYTES + 1)  # sparse
    with pytest.raises(images.ImageError, match="above the limit of 268435456"):
        images.read(image, card=CARD)


def bomb(height, width):
    return png_by_hand((height, width), 8, 0, [b"\0"])


@pytest.mark.parametrize("size", [(9460, 9460), (20_000, 20_000), (100_000, 100_000)])
@pytest.mark.parametrize("limit", [Image.MAX_IMAGE_PIXELS, None])
def test_decompression_bomb_is_refused_before_decoding(tmp_path, size, limit, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)

    def load(_self):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    message = refusal(tmp_path, bomb(*size))
    assert "limit" in message
    assert "decoded" not in message


def test_largest_size_is_not_a_bomb(tmp_path):
    assert "limit" not in refusal(tmp_path, bomb(1, pixels.MAX_PIXELS))
    assert "limit" in refusal(tmp_path, bomb(1, pixels.MAX_PIXELS + 1))


def test_any_exception_of_pillow_becomes_one_line(tmp_path, monkeypatch):
    def load(_self):
        raise MemoryError("first\nsecond " + "x" * 1000)

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    message = refusal(tmp_path, png())
    assert message.startswith("cannot be decoded: MemoryError: first second")
    assert len(message) < 300


# ------------------------------------------------------------------ read: warnings and threads

# A second acTL chunk makes Pillow warn; so does a TIFF tag that points outside of the file.
APNG = struct.pack(">I", 8) + b"acTL" + bytes(8) + struct.pack(">I", zlib.crc32(b"acTL" + bytes(8)))
WARNING = png_by_hand((4, 6), 8, 0, [bytes(6)] * 4, extra=APNG)


def test_sample_does_warn():
    with pytest.warns(UserWarning, match="Invalid APNG"):
        Image.open(io.BytesIO(WARNING))


@pytest.mark.parametrize("action", ["error", "always"])
def test_pillow_s_warnings_neither_leak_nor_matter(tmp_path, action):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(action)
        before = list(warnings.filters)
        out = read(tmp_path, WARNING)
        assert warnings.filters == before
    assert caught == []
    assert out.values.shape == (3, 4, 6)


def test_warnings_filters_are_restored_after_a_refusal(tmp_path):
    before = list(warnings.filters)
    refusal(tmp_path, b"x")
    assert warnings.filters == before


# ------------------------------------------------------------------ read: fuzz


def samples():
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description that does not fit into four bytes"
    other = Image.new("RGB", rgb.size, "red")
    return [
        encoded(rgb, "PNG", exif=exif),
        encoded(rgb, "PNG", save_all=True, append_images=[other]),
        encoded(rgb, "JPEG", exif=exif),
        encoded(rgb.convert("CMYK"), "JPEG", progressive=True),
        encoded(rgb, "MPO", save_all=True, append_images=[other]),
        encoded(rgb, "GIF", save_all=True, append_images=[other]),
        encoded(rgb, "TIFF", exif=exif),
        encoded(rgb, "TIFF", compression="tiff_lzw", save_all=True, append_images=[other]),
        encoded(rgb, "WEBP", lossless=True, exif=exif),
        encoded(rgb, "WEBP", save_all=True, append_images=[other]),
        encoded(rgb, "BMP"),
        encoded(rgb, "PPM"),
        b"P3 2 2 65535 " + b"1 2 3 " * 4,
    ]


SAMPLES = samples()


@settings(max_examples=400, derandomize=True, deadline=None)
@given(
    data=st.sampled_from(SAMPLES),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=6),
    head=st.booleans(),
    kept=st.floats(0, 1) | st.just(1.0),
)
def test_hostile_bytes_raise_nothing_but_image_error(tmp_path_factory, data, flips, head, kept):
    damaged = bytearray(data)
    for place, mask in flips:
        # Half of the time only the first bytes, where formats keep what decides most.
        damaged[int(place * (min(64, len(data)) if head else len(data)))] ^= mask
    image = image_of(tmp_path_factory.getbasetemp(), bytes(damaged[: round(kept * len(data))]))
    try:
        with mock.patch.object(pixels, "MAX_PIXELS", 10**6):  # sizes are damaged too, and large ones take seconds
            out = images.read(image, card=card(resize=Resize("stretch")))
    except images.ImageError as e:
        assert "\n" not in str(e)
        assert str(image.path) not in str(e)
    else:
        assert out.values.shape == (3, 4, 6)
        assert out.values.dtype == np.float32
        assert out.values.min() >= 0
        assert out.values.max() <= 255


def test_samples_are_valid(tmp_path):
    for data in SAMPLES:
        read(tmp_path, data, card=card(resize=Resize("stretch")))
