"""From the bytes of an image to its pixels."""

import hashlib
import struct

import numpy as np
import pytest
from pictures import card, encoded, gradient, png, png_by_hand, read, refusal
from PIL import Image

from analyzer.card import Resize

# ------------------------------------------------------------------ read: pixels


def test_read_values_and_hash(tmp_path):
    data = png()
    out = read(tmp_path, data)
    assert out.values.dtype == np.float32
    assert out.values.flags.c_contiguous
    np.testing.assert_array_equal(out.values, gradient().transpose(2, 0, 1))
    assert out.sha256 == hashlib.sha256(data).hexdigest()
    assert out.notes == ()


def test_read_is_rgb_even_for_a_bgr_card(tmp_path):
    out = read(tmp_path, png(), card=card(channels="BGR"))
    np.testing.assert_array_equal(out.values, gradient().transpose(2, 0, 1))


@pytest.mark.parametrize("format", ["PNG", "PPM", "BMP", "TIFF", "GIF", "WEBP"])
def test_read_decides_by_content(tmp_path, format):
    gray = np.repeat(gradient(channels=1), 3, axis=2)
    out = read(tmp_path, encoded(Image.fromarray(gray), format, **({"lossless": True} if format == "WEBP" else {})))
    np.testing.assert_array_equal(out.values, gray.transpose(2, 0, 1))


def test_read_jpeg(tmp_path):
    out = read(tmp_path, encoded(Image.new("RGB", (6, 4), (200, 100, 50)), "JPEG", quality=95))
    np.testing.assert_allclose(out.values.mean(axis=(1, 2)), [200, 100, 50], atol=3)


def test_gray_card_and_gray_image(tmp_path):
    gray = gradient(channels=1)[..., 0]
    np.testing.assert_array_equal(read(tmp_path, png(gray), card=card(channels="L")).values, gray[None])
    np.testing.assert_array_equal(read(tmp_path, png(gray)).values, np.stack([gray] * 3))
    luma = read(tmp_path, png(), card=card(channels="L")).values[0]
    np.testing.assert_allclose(luma, gradient() @ [0.299, 0.587, 0.114], atol=0.51)


def test_alpha_is_dropped(tmp_path):
    rgba = np.dstack([gradient(), np.zeros((4, 6), np.uint8)])
    out = read(tmp_path, png(rgba))
    np.testing.assert_array_equal(out.values, gradient().transpose(2, 0, 1))
    assert out.notes == ("transparency dropped",)
    gray_alpha = np.dstack([gradient(channels=1), np.zeros((4, 6), np.uint8)])
    out = read(tmp_path, png(gray_alpha), card=card(channels="L"))
    np.testing.assert_array_equal(out.values[0], gradient(channels=1)[..., 0])
    assert out.notes == ("transparency dropped",)


def test_transparent_colour_is_dropped(tmp_path):
    picture = Image.fromarray(gradient())
    out = read(tmp_path, encoded(picture, "PNG", transparency=(0, 1, 2)))
    np.testing.assert_array_equal(out.values, gradient().transpose(2, 0, 1))
    assert out.notes == ("transparency dropped",)


@pytest.mark.parametrize("transparency", [None, 1, bytes([0, 128, 255])])
def test_palette(tmp_path, transparency):
    picture = Image.new("P", (6, 4), 1)
    picture.putpalette([9, 8, 7, 100, 150, 200, 1, 2, 3])
    options = {} if transparency is None else {"transparency": transparency}
    out = read(tmp_path, encoded(picture, "PNG", **options))
    np.testing.assert_array_equal(out.values[:, 0, 0], [100, 150, 200])
    assert out.notes == (("transparency dropped",) if options else ()) + ("palette looked up",)


def test_cmyk(tmp_path):
    out = read(tmp_path, encoded(Image.new("CMYK", (6, 4), (255, 0, 0, 0)), "TIFF"))
    np.testing.assert_array_equal(out.values[:, 0, 0], [0, 255, 255])
    assert out.notes == ("CMYK converted without a colour profile",)


def test_one_bit(tmp_path):
    out = read(tmp_path, encoded(Image.new("1", (6, 4), 1), "PNG"))
    assert np.all(out.values == 255)


SIXTEEN = np.array([0, 128, 129, 257, 385, 386, 32768, 65278, 65406, 65407, 65534, 65535], np.uint16).reshape(2, 6)
EIGHT = np.array([0, 0, 1, 1, 1, 2, 128, 254, 254, 255, 255, 255], np.float32).reshape(2, 6)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_gray(tmp_path, format):
    if format == "PPM":
        data = b"P5 6 2 65535\n" + SIXTEEN.astype(">u2").tobytes()
    else:
        data = encoded(Image.fromarray(SIXTEEN), format)
    for channels, count in (("L", 1), ("RGB", 3)):
        out = read(tmp_path, data, card=card((2, 6), channels=channels))
        np.testing.assert_array_equal(out.values, np.stack([EIGHT] * count))
        assert out.notes == ("16 bits scaled to 8",)


def test_sixteen_bit_big_endian_tiff(tmp_path):
    picture = Image.frombytes("I;16B", (6, 2), SIXTEEN.astype(">u2").tobytes())
    out = read(tmp_path, encoded(picture, "TIFF"), card=card((2, 6), channels="L"))
    np.testing.assert_array_equal(out.values[0], EIGHT)


def test_sixteen_bit_colour_is_noted(tmp_path):
    rows = [struct.pack(">18H", *[v * 257 for v in range(18)])] * 2
    out = read(tmp_path, png_by_hand((2, 6), 16, 2, rows), card=card((2, 6)))
    np.testing.assert_array_equal(out.values[:, 0, 5], [15, 16, 17])
    assert out.notes == ("16 bits scaled to 8",)
    pixmap = b"P6 6 2 65535\n" + b"".join(rows) + b""
    assert read(tmp_path, pixmap, card=card((2, 6))).notes == ("16 bits scaled to 8",)


def test_a_tiff_of_32_bits_holding_grey_levels_is_not_scaled_to_black(tmp_path):
    values = np.array([0, 1, 2, 128, 254, 255] * 2, np.int32).reshape(2, 6)
    for channels, count in (("L", 1), ("RGB", 3)):
        out = read(tmp_path, encoded(Image.fromarray(values), "TIFF"), card=card((2, 6), channels=channels))
        np.testing.assert_array_equal(out.values, np.stack([values] * count))
        assert out.notes == ("integers of more than 8 bits, all in 0..255, taken as grey levels",)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = read(tmp_path, encoded(Image.fromarray(values), "TIFF", exif=exif), card=card((6, 2), channels="L"))
    np.testing.assert_array_equal(turned.values[0], np.rot90(values, -1))
    assert turned.notes[1:] == ("EXIF orientation applied",)


def test_a_tiff_of_32_bits_above_255_and_a_dark_image_of_16_are_scaled(tmp_path):
    wide = encoded(Image.fromarray(SIXTEEN.astype(np.int32)), "TIFF")
    dark = np.full((2, 6), 200, np.uint16)
    for data, expected in ((wide, EIGHT), (encoded(Image.fromarray(dark), "TIFF"), 1), (png(dark), 1)):
        out = read(tmp_path, data, card=card((2, 6), channels="L"))
        np.testing.assert_array_equal(out.values[0], np.broadcast_to(expected, (2, 6)))
        assert out.notes == ("16 bits scaled to 8",)
    pixmap = b"P5 6 2 65535\n" + dark.astype(">u2").tobytes()
    assert read(tmp_path, pixmap, card=card((2, 6), channels="L")).notes == ("16 bits scaled to 8",)


def test_deep_pixels_refused(tmp_path):
    assert "floating" in refusal(tmp_path, encoded(Image.new("F", (6, 4), 0.5), "TIFF"))
    assert "0..65535" in refusal(tmp_path, encoded(Image.new("I", (6, 4), 70000), "TIFF"))
    assert "0..65535" in refusal(tmp_path, encoded(Image.new("I", (6, 4), -1), "TIFF"))


def with_short_tag(tiff, tag, before, after):
    """A little-endian TIFF, one short value of which is replaced."""
    entry = struct.pack("<HHIH", tag, 3, 1, before)
    assert tiff.count(entry) == 1
    return tiff.replace(entry, struct.pack("<HHIH", tag, 3, 1, after))


def test_premultiplied_alpha_is_divided_out(tmp_path):
    data = with_short_tag(encoded(Image.new("RGBA", (6, 4), (50, 100, 0, 128)), "TIFF"), 338, 2, 1)
    out = read(tmp_path, data)
    np.testing.assert_allclose(out.values[:, 0, 0], [100, 199, 0], atol=1)
    assert out.notes == ("transparency dropped",)


def test_unusual_gray_tiffs_are_refused(tmp_path):
    data = encoded(Image.fromarray(SIXTEEN), "TIFF")
    assert "12 bits" in refusal(tmp_path, with_short_tag(data, 258, 16, 12))
    assert "white at zero" in refusal(tmp_path, with_short_tag(data, 262, 1, 0))
    eight = with_short_tag(encoded(Image.new("L", (6, 4), 5), "TIFF"), 262, 1, 0)
    assert np.all(read(tmp_path, eight).values == 250)


UPRIGHT = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)
# What a camera that is held so stores; the tag says how to get UPRIGHT back (EXIF 2.3, tag 274).
STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.T,
    6: UPRIGHT.T[::-1],
    7: UPRIGHT.T[::-1, ::-1],
    8: UPRIGHT.T[:, ::-1],
}


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation(tmp_path, orientation, format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(np.ascontiguousarray(STORED[orientation])).convert("RGB")
    options = {"lossless": True} if format == "WEBP" else {}
    out = read(tmp_path, encoded(picture, format, exif=exif, **options), card=card((2, 3)))
    np.testing.assert_array_equal(out.values[0], UPRIGHT)
    assert out.notes == (("EXIF orientation applied",) if orientation > 1 else ())


def test_exif_orientation_of_a_jpeg(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("RGB", (16, 32), "black")
    picture.paste("white", (0, 0, 16, 16))  # the stored top is the right-hand side
    out = read(tmp_path, encoded(picture, "JPEG", exif=exif), card=card((16, 32)))
    assert out.values[:, :, 20:].min() > 240
    assert out.values[:, :, :12].max() < 15


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_unreadable_exif_is_noted(tmp_path, format):
    data = encoded(Image.new("RGB", (6, 4), "white"), format, exif=b"Exif\0\0nonsense", dpi=(72, 72))
    out = read(tmp_path, data)
    assert np.all(out.values >= 254)
    assert out.notes == ("unreadable EXIF ignored",)


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01", b"Exif\0\0MM"])
def test_damaged_exif_spares_the_image(tmp_path, exif):
    out = read(tmp_path, encoded(Image.new("RGB", (6, 4), "white"), "JPEG", exif=exif))
    assert np.all(out.values == 255)


@pytest.mark.parametrize("format", ["GIF", "PNG", "TIFF", "WEBP"])
def test_first_of_several_frames(tmp_path, format):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("#ffffff", "#000000", "#ff0000")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    out = read(tmp_path, data)
    assert np.all(out.values == 255)
    assert "first of several frames" in out.notes


# ------------------------------------------------------------------ read: region and resize


def test_region_is_inclusive(tmp_path):
    out = read(tmp_path, png(), card=card((2, 3)), roi=(1, 2, 3, 3))
    np.testing.assert_array_equal(out.values, gradient().transpose(2, 0, 1)[:, 2:4, 1:4])
    assert read(tmp_path, png(), card=card((1, 1)), roi=(5, 3, 5, 3)).values[0, 0, 0] == gradient()[3, 5, 0]


@pytest.mark.parametrize("roi", [(0, 0, 6, 3), (0, 0, 5, 4), (3, 0, 2, 3), (0, 3, 5, 2), (-1, 0, 5, 3)])
def test_region_outside_is_refused(tmp_path, roi):
    assert "not inside the image of 6 x 4" in refusal(tmp_path, png(), card=card(), roi=roi)


@pytest.mark.parametrize("kind", ["bilinear", "bicubic", "nearest", "lanczos"])
def test_stretch(tmp_path, kind):
    out = read(tmp_path, png(), card=card((7, 5), resize=Resize("stretch", interpolation=kind)))
    expected = Image.fromarray(gradient()).resize((5, 7), Image.Resampling[kind.upper()])
    np.testing.assert_array_equal(out.values, np.asarray(expected).transpose(2, 0, 1))


# (height, width) of the image, n, (height, width) after scaling, card's size, (top, left) of the crop.
# torchvision's Resize(n): the long side becomes int(n * long / short); its CenterCrop(size): round((H - h) / 2), with
# Python's rounding to even.
SHORTER = [
    ((31, 47), 16, (16, 24), (16, 16), (0, 4)),  # 16 * 47 / 31 = 24.26
    ((31, 50), 16, (16, 25), (16, 16), (0, 4)),  # 25.81; 4.5 to even
    ((47, 31), 16, (24, 16), (16, 16), (4, 0)),
    ((333, 500), 256, (256, 384), (224, 224), (16, 80)),  # 384.38
    ((375, 500), 256, (256, 341), (224, 224), (16, 58)),  # 341.33; 58.5 to even
    ((500, 375), 256, (341, 256), (224, 225), (58, 16)),  # 58.5 and 15.5 to even
    ((30, 30), 8, (8, 8), (5, 5), (2, 2)),  # 1.5 to even
    ((10, 10), 5, (5, 5), (4, 4), (0, 0)),  # 0.5 to even
    ((20, 33), 20, (20, 33), (20, 20), (0, 6)),  # 6.5 to even; nothing to scale
    ((5, 7), 20, (20, 28), (20, 28), (0, 0)),
    ((29, 58), 29, (29, 58), (3, 3), (13, 28)),  # 27.5 to even
]


@pytest.mark.parametrize(("image", "side", "scaled", "size", "corner"), SHORTER)
def test_shorter_side_and_centre_crop(tmp_path, image, side, scaled, size, corner):
    array = np.random.default_rng(0).integers(0, 256, (*image, 3), dtype=np.uint8)
    out = read(tmp_path, png(array), card=card(size, resize=Resize("shorter_side", side)))
    large = np.asarray(Image.fromarray(array).resize(scaled[::-1], Image.Resampling.BILINEAR))
    expected = large[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]
    np.testing.assert_array_equal(out.values, expected.transpose(2, 0, 1))


def test_crop_larger_than_the_scaled_image(tmp_path):
    message = refusal(tmp_path, png(), card=card((8, 20), resize=Resize("shorter_side", 8)))
    assert message == "12 x 8 after scaling, smaller than the crop of 20 x 8"


def test_no_resize_wants_the_card_s_size(tmp_path):
    assert "6 x 4 pixels" in refusal(tmp_path, png(), card=card((6, 4)))


def test_region_before_resize(tmp_path):
    out = read(tmp_path, png(), card=card((4, 4), resize=Resize("stretch")), roi=(0, 0, 1, 1))
    expected = Image.fromarray(gradient()[:2, :2]).resize((4, 4), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(out.values, np.asarray(expected).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("resize", "size"),
    [
        (Resize("shorter_side", 256), (224, 224)),
        (Resize("shorter_side", 10**400), (2, 2)),
        (Resize("stretch"), (10**6, 10**6)),
    ],
)
def test_resize_to_a_monster_is_refused(tmp_path, resize, size):
    data = png(np.zeros((1, 60_000), np.uint8))
    refusal(tmp_path, data, card=card(size, resize=resize))
