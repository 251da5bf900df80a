import hashlib
import inspect
import io
import os
import random
import socket
import struct
import sys
import warnings
import zlib
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from analyzer import images
from analyzer.card import Card, Resize
from analyzer.errors import InputError
from analyzer.images import files, pixels

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


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "set"
    path.mkdir()
    return path


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


def pairs(found):
    return [(image.id, image.label) for image in found]


# ------------------------------------------------------------------ find: which images


def test_find_is_recursive_and_sorted_by_id(folder):
    put(folder, "b/x.png", "a.JPG", "b/c/y.TiFf", "Z.webp", "a.txt", "png", "x.png.bak")
    found = images.find(folder, card=CARD)
    assert [image.id for image in found] == ["Z.webp", "a.JPG", "b/c/y.TiFf", "b/x.png"]
    assert found[3].path == folder / "b" / "x.png"
    assert {(image.label, image.roi) for image in found} == {(None, None)}


@pytest.mark.parametrize("suffix", images.SUFFIXES)
def test_find_takes_every_suffix(folder, suffix):
    put(folder, f"x{suffix}", f"y{suffix.upper()}")
    assert len(images.find(folder, card=CARD)) == 2


def test_find_leaves_out_what_is_hidden(folder):
    put(folder, ".x.png", ".git/y.png", "._z.png", "z.png")
    assert [image.id for image in images.find(folder, card=CARD)] == ["z.png"]


def test_find_follows_links_to_files_but_not_to_folders(folder, tmp_path):
    put(folder, "sub/x.png", "top.png")
    put(tmp_path, "elsewhere/y.png")
    (folder / "loop").symlink_to(folder)
    (folder / "sub" / "up").symlink_to("..")
    (folder / "self.png").symlink_to("self.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "folder.png").symlink_to(tmp_path / "elsewhere")
    (folder / "link.png").symlink_to(tmp_path / "elsewhere" / "y.png")
    assert [image.id for image in images.find(folder, card=CARD)] == ["link.png", "sub/x.png", "top.png"]


def test_find_ignores_what_is_not_a_file(folder, monkeypatch):
    put(folder, "x.png")
    os.mkfifo(folder / "fifo.png")
    (folder / "device.png").symlink_to("/dev/zero")
    monkeypatch.chdir(folder)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("socket.png")
        assert [image.id for image in images.find(folder, card=CARD)] == ["x.png"]


def test_find_opens_no_image(folder):
    put(folder, "x.png")
    (folder / "x.png").chmod(0)
    assert len(images.find(folder, card=CARD)) == 1


def test_find_undecodable_names(folder):
    for name in (b"\xff.png", b"\\xff.png", "é.png".encode()):
        path = os.fsdecode(os.fsencode(folder) + b"/" + name)
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(png())
    found = images.find(folder, card=CARD)
    assert [image.id for image in found] == [r"\\xff.png", r"\xff.png", "é.png"]
    for image in found:
        image.id.encode()
        assert images.read(image, card=CARD).values.shape == (3, 4, 6)


@pytest.fixture
def little_stack():
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 150)
    yield
    sys.setrecursionlimit(limit)


def test_find_deep_folders(folder, little_stack):
    path = folder
    for _ in range(300):
        path = path / "d"
        path.mkdir()
    put(folder, "top.png", "d/" * 300 + "x.png")
    assert [image.id for image in images.find(folder, card=CARD)] == ["d/" * 300 + "x.png", "top.png"]


@pytest.mark.parametrize("name", ["gone", "file.png", "empty", "nul\0", "n" * 300])
def test_find_refuses_a_folder_without_images(tmp_path, name):
    (tmp_path / "empty" / "sub").mkdir(parents=True)
    put(tmp_path, "file.png", "empty/notes.txt")
    with pytest.raises(InputError) as e:
        images.find(tmp_path / name, card=CARD)
    assert name in str(e.value)
    assert len(str(e.value).splitlines()) <= 2


def test_find_refuses_a_folder_it_cannot_search(folder, monkeypatch):
    put(folder, "x.png", "sub/y.png")
    scandir = os.scandir

    def denied(path):
        if path.name == "sub":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(InputError, match="sub: cannot be searched"):
        images.find(folder, card=CARD)


# ------------------------------------------------------------------ find: labels from a CSV

LABELLED = card(labels=("cat", "crane", "dog", "crane", "7"))


def from_csv(folder, text, *, card=LABELLED):
    path = folder.parent / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return pairs(images.find(folder, card=card, labels=path))


def test_csv_names_indices_and_images_left_out(folder):
    put(folder, "a.png", "b.png", "sub/c.png", "d.png", "e.png")
    text = 'file,label\na.png,dog\n"./b.png",3\n\nsub//c.png,cat\ne.png,7\nb.png,03\n'
    assert from_csv(folder, text) == [("a.png", 2), ("b.png", 3), ("e.png", 4), ("sub/c.png", 0)]


def test_csv_without_labels_in_the_card(folder):
    put(folder, "a.png")
    assert from_csv(folder, "file,label\na.png,41\n", card=CARD) == [("a.png", 41)]


def test_csv_byte_order_mark_and_crlf(folder):
    put(folder, "a,b.png")
    assert from_csv(folder, '\ufefffile, label \r\n"a,b.png",dog\r\n') == [("a,b.png", 2)]


def test_csv_can_name_any_file(folder):
    put(folder, "a\\b.png", os.fsdecode(b"\xff.png"))
    assert from_csv(folder, "file,label\na\\b.png,0\n\\xff.png,2\n") == [("\\xff.png", 2), ("a\\\\b.png", 0)]


def test_csv_wins_over_folders(folder):
    put(folder, "dog/a.png")
    assert from_csv(folder, "file,label\ndog/a.png,cat\n") == [("dog/a.png", 0)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "file,label"),
        ("file;label\na.png;cat\n", "file,label"),
        ("a.png,cat\n", "file,label"),
        ("file,label\n", "lists no image"),
        ("file,label\na.png\n", "line 2"),
        ("file,label\na.png,cat,1\n", "line 2"),
        ("file,label\na.png,bird\n", "'bird' is unknown"),
        ("file,label\na.png,-1\n", "'-1' is unknown"),
        ("file,label\na.png,1.0\n", "'1.0' is unknown"),
        ("file,label\na.png,\n", "'' is unknown"),
        ("file,label\na.png,5\n", "class 5 is out of range"),
        ("file,label\na.png," + "9" * 5000 + "\n", "is unknown"),
        ("file,label\na.png,crane\n", "'crane' stands for classes 1 and 3"),
        ("file,label\n\nz.png,cat\n", "line 3: no image 'z.png'"),
        ("file,label\na.png,cat\na.png,2\n", "'a.png' has class 2 here and class 0"),
        ("file,label\n../set/a.png,cat\n", "leaves the folder"),
        ("file,label\n/a.png,cat\n", "leaves the folder"),
        ("file,label\n..\\a.png,cat\n", "leaves the folder"),
        ("file,label\nC:\\a.png,cat\n", "leaves the folder"),
        ('file,label\n"a.png,cat\n', "not a CSV table"),
        ('file,label\n"a"x,cat\n', "not a CSV table"),
        ("file,label\n" + "x" * 200_000 + ",cat\n", "not a CSV table"),
        ("file,label\na.png,k\xe4se\n".encode("latin-1"), "not UTF-8"),
        ("file,label\na.png,cat\n".encode("utf-16"), "not UTF-8"),
    ],
)
def test_csv_refused(folder, text, names):
    put(folder, "a.png")
    with pytest.raises(InputError) as e:
        from_csv(folder, text)
    message = str(e.value)
    assert names in message
    assert "labels.csv" in message
    assert len(message.splitlines()) <= 2
    assert len(message) < 500


@pytest.mark.parametrize("name", ["gone.csv", "folder.csv", "fifo.csv"])
def test_csv_that_cannot_be_read(folder, name):
    put(folder, "a.png")
    (folder / "folder.csv").mkdir()
    os.mkfifo(folder / "fifo.csv")
    with pytest.raises(InputError, match=f"{name}: cannot be read"):
        images.find(folder, card=LABELLED, labels=folder / name)


# ------------------------------------------------------------------ find: labels from GTSRB's tables

TRAIN = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"
TEST = TRAIN.replace(";ClassId", "")


def test_gtsrb_training_layout(folder):
    put(folder, "00000/00000_00000.ppm", "00000/extra.ppm", "00014/00000_00000.ppm")
    (folder / "00000" / "GT-00000.csv").write_text(TRAIN + "00000_00000.ppm;29;30;5;6;24;25;0\n")
    (folder / "00014" / "GT-00014.csv").write_text(TRAIN + "00000_00000.ppm;29;30;1;2;3;4;14\n")
    assert [(i.id, i.label, i.roi) for i in images.find(folder, card=CARD)] == [
        ("00000/00000_00000.ppm", 0, (5, 6, 24, 25)),
        ("00014/00000_00000.ppm", 14, (1, 2, 3, 4)),
    ]


def test_gtsrb_test_layout_without_and_with_classes(folder):
    put(folder, "00000.ppm", "00001.ppm")
    (folder / "GT-final_test.test.csv").write_text(TEST + "00000.ppm;53;54;6;5;48;49\n")
    assert [(i.id, i.label, i.roi) for i in images.find(folder, card=CARD)] == [("00000.ppm", None, (6, 5, 48, 49))]
    (folder / "GT-final_test.csv").write_text(TRAIN + "00000.ppm;53;54;6;5;48;49;16\n00001.ppm;42;45;5;5;36;40;1\n")
    assert pairs(images.find(folder, card=CARD)) == [("00000.ppm", 16), ("00001.ppm", 1)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "no column Filename, Roi.X1"),
        (TRAIN.replace(";", ","), "no column Filename"),
        (TRAIN + "00000.ppm;1;1;0;0;1\n", "line 2"),
        (TRAIN + "00000.ppm;1;1;0;0;1;-1;0\n", "Roi.Y2"),
        (TRAIN + "00000.ppm;1;1;0;0;1;1;x\n", "ClassId"),
        (TRAIN + "00000.ppm;1;1;0;0;1;1;2\n", "class 2 is out of range"),
        (TRAIN + "00000.ppm;1;1;0;0;1;1;1\n00000.ppm;1;1;0;0;1;1;0\n", "another class or region"),
        (TEST + "00000.ppm;1;1;0;0;1;1\n00000.ppm;1;1;0;0;1;0\n", "another class or region"),
        (TRAIN + "00009.ppm;1;1;0;0;1;1;1\n", "no image '00009.ppm'"),
        (TRAIN + "../00000.ppm;1;1;0;0;1;1;1\n", "leaves the folder"),
        (TRAIN, "lists no image"),
    ],
)
def test_gtsrb_refused(folder, text, names):
    put(folder, "00000.ppm")
    (folder / "GT-final_test.csv").write_text(text)
    with pytest.raises(InputError) as e:
        images.find(folder, card=card(labels=("a", "b")))
    assert names in str(e.value)
    assert "GT-final_test.csv" in str(e.value)


# ------------------------------------------------------------------ find: labels from folders


def test_folders_named_by_label(folder):
    put(folder, "dog/a.png", "dog/deeper/b.png", "cat/a.png")
    found = images.find(folder, card=LABELLED)
    assert pairs(found) == [("cat/a.png", 0), ("dog/a.png", 2), ("dog/deeper/b.png", 2)]


def test_folders_named_by_index(folder):
    put(folder, "00003/a.png", "12/a.png")
    assert pairs(images.find(folder, card=CARD)) == [("00003/a.png", 3), ("12/a.png", 12)]


def test_folder_and_label_composed_differently(folder):
    put(folder, "cafe\u0301/a.png")
    assert pairs(images.find(folder, card=card(labels=("x", "caf\u00e9")))) == [("cafe\u0301/a.png", 1)]


def test_folder_with_a_backslash(folder):
    put(folder, "a\\b/a.png")
    assert pairs(images.find(folder, card=card(labels=("a\\b",)))) == [("a\\\\b/a.png", 0)]


def test_folders_and_loose_images_have_no_labels(folder):
    put(folder, "dog/a.png", "b.png")
    assert pairs(images.find(folder, card=LABELLED)) == [("b.png", None), ("dog/a.png", None)]


@pytest.mark.parametrize(
    ("name", "labels", "says"),
    [
        ("bird", LABELLED.labels, "'bird' is unknown"),
        ("crane", LABELLED.labels, "'crane' stands for classes 1 and 3"),
        ("2", LABELLED.labels, "'2' is unknown"),
        ("dog", None, "'dog' is unknown; expected a class index"),
    ],
)
def test_folders_refused(folder, name, labels, says):
    put(folder, f"{name}/a.png")
    with pytest.raises(InputError) as e:
        images.find(folder, card=card(labels=labels))
    assert says in str(e.value)
    assert "`labels`" in str(e.value)
    assert len(str(e.value).splitlines()) == 2


# ------------------------------------------------------------------ order


def test_seeded_order_is_a_property_of_id_and_seed(folder):
    put(folder, *(f"{n:03}.png" for n in range(60)))
    found = images.find(folder, card=CARD)
    order = images.seeded_order(found, seed=5)
    assert sorted(order, key=lambda image: image.id) == found
    assert order != found
    shuffled = list(found)
    random.Random(0).shuffle(shuffled)
    assert images.seeded_order(shuffled, seed=5) == order
    half = [image for image in found if image.id < "030"]
    assert images.seeded_order(half, seed=5) == [image for image in order if image in half]
    assert images.seeded_order(found, seed=6) != order


def test_seeded_order_is_the_documented_one(folder):
    put(folder, "a.png", "é.png", "c.png")
    order = [image.id for image in images.seeded_order(images.find(folder, card=CARD), seed=1)]
    assert order == sorted(["a.png", "é.png", "c.png"], key=lambda x: hashlib.sha256(f"1/{x}".encode()).hexdigest())


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
