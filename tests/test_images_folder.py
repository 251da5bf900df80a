"""Which images a folder holds, with which labels, and their order."""

import hashlib
import inspect
import os
import random
import socket
import sys

import pytest
from pictures import CARD, card, pairs, png, put

from analyzer import images
from analyzer.errors import InputError


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "set"
    path.mkdir()
    return path


# ------------------------------------------------------------------ find: which images


def test_find_is_recursive_and_sorted_by_id(folder):
    put(folder, "b/x.png", "a.JPG", "b/c/y.TiFf", "Z.webp", "a.txt", "png", "x.png.bak")
    listed = images.find(folder, card=CARD)
    assert [image.id for image in listed] == ["Z.webp", "a.JPG", "b/c/y.TiFf", "b/x.png"]
    assert listed[3].path == folder / "b" / "x.png"
    assert {(image.label, image.roi) for image in listed} == {(None, None)}


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
    listed = images.find(folder, card=CARD)
    assert [image.id for image in listed] == [r"\\xff.png", r"\xff.png", "é.png"]
    for image in listed:
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
    listed = images.find(folder, card=LABELLED)
    assert pairs(listed) == [("cat/a.png", 0), ("dog/a.png", 2), ("dog/deeper/b.png", 2)]


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
    listed = images.find(folder, card=CARD)
    order = images.seeded_order(listed, seed=5)
    assert sorted(order, key=lambda image: image.id) == listed
    assert order != listed
    shuffled = list(listed)
    random.Random(0).shuffle(shuffled)
    assert images.seeded_order(shuffled, seed=5) == order
    half = [image for image in listed if image.id < "030"]
    assert images.seeded_order(half, seed=5) == [image for image in order if image in half]
    assert images.seeded_order(listed, seed=6) != order


def test_seeded_order_is_the_documented_one(folder):
    put(folder, "a.png", "é.png", "c.png")
    order = [image.id for image in images.seeded_order(images.find(folder, card=CARD), seed=1)]
    assert order == sorted(["a.png", "é.png", "c.png"], key=lambda x: hashlib.sha256(f"1/{x}".encode()).hexdigest())
