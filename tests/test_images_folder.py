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


# ------------------------------------------------------------------ find: what is left out


def notes(folder, **options):
    return list(images.find_set(folder, card=CARD, **options).notes)


def test_a_clean_folder_has_no_notes(folder):
    put(folder, "3/a.png", "3/b.jfif", "12/c.jpe", "labels.csv", ".DS_Store", "12/more.CSV")
    (folder / "empty").mkdir()
    assert notes(folder) == []


def test_files_that_are_no_images_are_counted_by_their_suffix(folder):
    put(folder, "a.png", "x.heic", "y.HEIC", "z.txt", "README")
    assert notes(folder) == ["4 files left out: not images by their suffix (2 .heic, 1 .txt, 1 no suffix)."]
    put(folder, "q.raw", "q.dng")
    (kinds,) = notes(folder)
    assert kinds == "6 files left out: not images by their suffix (2 .heic, 1 .dng, 1 .raw and others)."


def test_what_is_hidden_linked_or_irregular_is_said(folder, tmp_path):
    put(folder, "a.png", ".cache/b.png", ".git/c.png", ".x.png")
    put(tmp_path, "elsewhere/y.png")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "self").symlink_to("self")
    (folder / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "fifo.jpg")
    assert notes(folder) == [
        "2 hidden folders left out: .cache, .git.",
        "1 linked folder left out: link.",
        "1 hidden image left out: .x.png.",
        "2 images left out: not a regular file (fifo.jpg, gone.png).",
    ]


def test_images_without_a_row_are_counted(folder):
    put(folder, "a.png", "b.png", "c.png")
    path = folder.parent / "labels.csv"
    path.write_text("file,label\na.png,1\n")
    assert notes(folder, labels=path) == ["2 images left out: without a row in the table of labels (b.png, c.png)."]


def test_a_folder_without_images_says_what_there_is(folder):
    put(folder, "a.heic", ".hidden/b.png")
    with pytest.raises(InputError) as e:
        images.find(folder, card=CARD)
    first, second = str(e.value).splitlines()
    assert "no image in this folder" in first and ".jfif" in first
    assert second == "(1 file left out: not images by their suffix (1 .heic); 1 hidden folder left out: .hidden)"


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


NUMBERED = card(labels=("1", "2", "3", "4", "5"))


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        (["0", "1", "4"], [0, 1, 4]),  # "0" is no name, so all are indices
        (["1", "2", "5"], [0, 1, 4]),  # class 5 is out of range, so all are names
        (["5", "5", "5"], [4, 4, 4]),
    ],
)
def test_csv_of_numbers_where_the_card_names_classes_by_numbers_is_read_in_one_way(folder, cells, classes):
    put(folder, "a.png", "b.png", "c.png")
    rows = "".join(f"{name}.png,{cell}\n" for name, cell in zip("abc", cells, strict=True))
    found = from_csv(folder, f"file,label\n{rows}", card=NUMBERED)
    assert found == [(f"{name}.png", label) for name, label in zip("abc", classes, strict=True)]


@pytest.mark.parametrize("cells", [["1", "2", "3"], ["0", "5", "1"]])
def test_csv_of_numbers_that_can_be_read_in_two_ways_is_refused(folder, cells):
    put(folder, "a.png", "b.png", "c.png")
    rows = "".join(f"{name}.png,{cell}\n" for name, cell in zip("abc", cells, strict=True))
    with pytest.raises(InputError, match=r"label '1' is both the index of class 1 and the card's name of class 0"):
        from_csv(folder, f"file,label\n{rows}", card=NUMBERED)


def test_csv_of_numbers_that_mean_the_same_as_names_and_as_indices(folder):
    put(folder, "a.png", "b.png")
    numbered = card(labels=("0", "1", "2"))
    assert from_csv(folder, "file,label\na.png,2\nb.png,1\n", card=numbered) == [("a.png", 2), ("b.png", 1)]


def test_a_run_among_the_images_is_left_out_and_counted(folder):
    put(folder, "a.png", "c.png", "out/figures/fig1.png", "out/units/x.png", "b/units/c.png")
    (folder / "out" / "manifest.json").write_text("{}")
    found = images.find_set(folder, card=CARD)
    assert [image.id for image in found.images] == ["a.png", "b/units/c.png", "c.png"]
    assert "1 run directory left out: out." in found.notes


def test_csv_without_labels_in_the_card(folder):
    put(folder, "a.png")
    assert from_csv(folder, "file,label\na.png,41\n", card=CARD) == [("a.png", 41)]


def test_csv_byte_order_mark_and_crlf(folder):
    put(folder, "a,b.png")
    assert from_csv(folder, '\ufefffile, label \r\n"a,b.png",dog\r\n') == [("a,b.png", 2)]


def test_csv_can_name_any_file(folder):
    put(folder, "a\\b.png", os.fsdecode(b"\xff.png"))
    assert from_csv(folder, "file,label\na\\b.png,0\n\\xff.png,2\n") == [("\\xff.png", 2), ("a\\\\b.png", 0)]


def test_csv_with_backslashes_in_paths(folder):
    put(folder, "dog/deep/a.png", "b\\c.png", "b/c.png")
    text = "file,label\ndog\\deep\\a.png,dog\nb\\c.png,cat\nb/c.png,dog\n"
    assert from_csv(folder, text) == [("b/c.png", 2), ("b\\\\c.png", 0), ("dog/deep/a.png", 2)]
    assert from_csv(folder, "file,label\n.\\dog\\deep\\a.png,cat\n") == [("dog/deep/a.png", 0)]


@pytest.mark.parametrize(
    "text",
    [
        "File,Label\na.png,dog\nb.png,cat\n",
        "FILE, LABEL\na.png,dog\nb.png,cat\n",
        "file;label\na.png;dog\nb.png;cat\n",
        "file\tlabel\na.png\tdog\nb.png\tcat\n",
        "id,label,split,file\n1,dog,test,a.png\n2,cat,,b.png\n",
        "\ufeffLabel;File;;\r\ndog;a.png;;\r\ncat;b.png;;\r\n",
        '\n"file","label"\n"a.png","dog"\nb.png,cat\n',
        'file,label,"notes; more; and; more"\na.png,dog,x\nb.png,cat,y\n',
    ],
)
def test_csv_capitals_other_columns_and_other_separators(folder, text):
    put(folder, "a.png", "b.png")
    assert from_csv(folder, text) == [("a.png", 2), ("b.png", 0)]


@pytest.mark.parametrize("text", ["file,label\ra.png,dog\r", '"file,label\na.png,dog\n', "file,label\0\n"])
def test_csv_with_odd_line_ends_or_quotes_is_read_or_refused(folder, text):
    put(folder, "a.png")
    try:
        assert from_csv(folder, text) == [("a.png", 2)]
    except InputError as e:
        assert "labels.csv" in str(e)


def test_csv_wins_over_folders(folder):
    put(folder, "dog/a.png")
    assert from_csv(folder, "file,label\ndog/a.png,cat\n") == [("dog/a.png", 0)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "file,label"),
        ("a.png,cat\n", "file,label"),
        ("filename;class\na.png;cat\n", "got 'filename;class'"),
        ("file,label,Label\na.png,cat,dog\n", "one column label"),
        ("file;label\na.png,cat\n", "line 2: expected 2 cells, file;label; got 1 (quote a name that has a semicolon)"),
        ("file,label,split\na.png,cat\n", "line 2: expected 3 cells, file,label,split; got 2"),
        ("file,label\nsub\\z.png,cat\n", "line 2: no image"),
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


def test_a_stray_image_beside_the_class_folders_is_left_out_and_labels_stay(folder):
    put(folder, "dog/a.png", "cat/b.png", "cover.png")
    image_set = images.find_set(folder, card=LABELLED)
    assert pairs(image_set.images) == [("cat/b.png", 0), ("dog/a.png", 2)]
    assert image_set.notes == ("1 image left out: beside the class folders (cover.png).",)
    assert images.find(folder, card=LABELLED) == image_set.images


def test_many_strays_are_counted_and_the_first_named(folder):
    put(folder, *(f"{n}/a.png" for n in range(5)), *(f"stray{n}.png" for n in range(5)))
    image_set = images.find_set(folder, card=CARD)
    assert [image.label for image in image_set.images] == [0, 1, 2, 3, 4]
    assert image_set.notes == (
        "5 images left out: beside the class folders (stray0.png, stray1.png, stray2.png, ...).",
    )


def test_sub_folders_that_name_no_class_beside_images_are_no_labels_and_that_is_said(folder):
    put(folder, "raw/a.png", "b.png")
    image_set = images.find_set(folder, card=LABELLED)
    assert pairs(image_set.images) == [("b.png", None), ("raw/a.png", None)]
    assert image_set.notes == ("No label is taken from sub-folders, as none is named as a class is: raw.",)


def test_a_stray_does_not_turn_off_the_labels_of_folders_that_are_misspelt(folder):
    """Without it the same folders are refused."""
    put(folder, "Cat/a.png", "Dog/b.png", "stray.png")
    with pytest.raises(InputError, match="label 'Cat' is unknown"):
        images.find(folder, card=card(labels=("cat", "dog")))


def test_a_misspelt_class_folder_beside_a_stray_is_refused(folder):
    put(folder, "dog/a.png", "bird/b.png", "cover.png")
    with pytest.raises(InputError, match="'bird' is unknown"):
        images.find(folder, card=LABELLED)


def test_more_images_beside_the_class_folders_than_inside_are_refused(folder):
    put(folder, "dog/a.png", "b.png", "c.png")
    with pytest.raises(InputError) as e:
        images.find(folder, card=LABELLED)
    assert "1 image in folders named as classes are, but 2 beside them, such as b.png" in str(e.value)
    assert "`labels`" in str(e.value) and len(str(e.value).splitlines()) == 2


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
