"""Images in a tar, in a zip, or named by a list: the same images, labels and numbers as from a folder."""

import io
import shutil
import tarfile
import zipfile

import graphs
import numpy as np
import pytest
import runs
from PIL import Image

from analyzer import bundled
from analyzer.errors import InputError
from analyzer.images import ImageError, find, find_set, read
from analyzer.images.archives import Member, content
from analyzer.images.folder import ImageFile

CARD = graphs.make_card(size=(16, 16))


def png(value=9):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (value,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def tar(path, files, **changed):
    with tarfile.open(path, changed.pop("mode", "w")) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def zipped(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


PACK = {"tar": tar, "zip": zipped}


def packed(kind, path, folder):
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    if kind != "txt":
        return PACK[kind](path, files)
    listed = folder / path.name
    listed.write_text("\n".join(files) + "\n\n")
    return listed


@pytest.mark.parametrize("kind", ["tar", "zip", "txt"])
def test_a_run_is_that_of_the_folder(tmp_path, images, kind):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 5)
    source = packed(kind, tmp_path / f"set.{kind}", images)
    from_folder = runs.measure(model, images, tmp_path / "a")
    found = runs.measure(model, source, tmp_path / "b")
    assert list(found["image"].values) == list(from_folder["image"].values)
    assert np.array_equal(found["isotropy_log_odds"], from_folder["isotropy_log_odds"])


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_class_folders_and_tables_label_an_archive(tmp_path, kind):
    card = graphs.make_card(size=(16, 16), labels=("cat", "dog"))
    source = PACK[kind](
        tmp_path / f"set.{kind}", {"dog/a.png": png(1), "cat/b.png": png(2), "n.txt": b"x", "l.csv": b"file,label"}
    )
    found = find_set(source, card=card)
    assert [(image.id, image.label) for image in found.images] == [("cat/b.png", 0), ("dog/a.png", 1)]
    assert any("1 file left out" in note for note in found.notes)
    assert "1 table inside not read: labels come from one outside the archive." in found.notes
    table = tmp_path / "labels.csv"
    table.write_text("file,label\ncat/b.png,dog\n")
    assert [(image.id, image.label) for image in find(source, card=card, labels=table)] == [("cat/b.png", 1)]


def test_samples_of_a_webdataset_have_their_classes(tmp_path):
    files = {"000/7.png": png(1), "000/7.cls": b"1\n", "000/8.png": png(2), "000/8.cls": b"0", "000/9.png": png(3)}
    found = find_set(tar(tmp_path / "shard.tar", files), card=CARD)
    assert [(image.id, image.label) for image in found.images] == [("000/7.png", 1), ("000/8.png", 0)]
    assert any("1 image left out: without a row" in note for note in found.notes)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_paths_that_lead_out_are_left_out(tmp_path, kind):
    files = {
        "../out.png": png(),
        "/etc/passwd.png": png(),
        "a/../../b.png": png(),
        ".hidden/c.png": png(),
        "ok.png": png(),
    }
    found = find_set(PACK[kind](tmp_path / f"set.{kind}", files), card=CARD)
    assert "ok.png" in [image.id for image in found.images]
    assert not any(".." in image.id or image.id.startswith("/") for image in found.images)
    assert any("not a regular file" in note for note in found.notes)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"set.{kind}"]


def test_links_in_a_tar_are_left_out(tmp_path):
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
        info = tarfile.TarInfo("a.png")
        info.size = len(png())
        archive.addfile(info, io.BytesIO(png()))
    assert [image.id for image in find(path, card=CARD)] == ["a.png"]


def test_a_bomb_is_an_unreadable_image(tmp_path, monkeypatch):
    from analyzer.images import archives

    source = zipped(tmp_path / "set.zip", {"bomb.png": b"\0" * 5_000_000, "a.png": png()})
    assert source.stat().st_size < 50_000
    monkeypatch.setattr(archives, "MAX_BYTES", 1_000_000)
    bomb = next(image for image in find(source, card=CARD) if image.id == "bomb.png")
    with pytest.raises(ImageError, match="above the limit"):
        read(bomb, card=CARD)
    lying = ImageFile("bomb.png", source, None, member=Member("bomb.png", 10))
    with pytest.raises(ImageError, match="above the limit"):
        read(lying, card=CARD)


def test_damage_inside_is_one_unreadable_image(tmp_path):
    source = zipped(tmp_path / "set.zip", {"a.png": png(1), "b.png": bytes(range(256)) * 40})
    data = bytearray(source.read_bytes())
    at = data.find(b"b.png") + 40
    data[at] ^= 0xFF
    source.write_bytes(data)
    damaged = next(image for image in find(source, card=CARD) if image.id == "b.png")
    with pytest.raises(ImageError):
        read(damaged, card=CARD)
    with pytest.raises(OSError, match="inside its archive"):
        content(source, Member("nothing.png", 3))


@pytest.mark.parametrize("name", ["set.tar", "set.zip"])
def test_what_is_no_archive(tmp_path, name):
    (tmp_path / name).write_bytes(b"no archive at all" * 100)
    with pytest.raises(InputError, match="cannot be read as"):
        find(tmp_path / name, card=CARD)


def test_a_compressed_tar_is_refused(tmp_path):
    source = tar(tmp_path / "set.tar", {"a.png": png()}, mode="w:gz")
    with pytest.raises(InputError, match="cannot be read as tar"):
        find(source, card=CARD)


def test_an_archive_without_images(tmp_path):
    with pytest.raises(InputError, match="no image in this folder"):
        find(tar(tmp_path / "set.tar", {"a.txt": b"x"}), card=CARD)


def test_an_archive_that_changes_is_opened_again(tmp_path):
    source = tar(tmp_path / "set.tar", {"a.png": png(1)})
    (first,) = find(source, card=CARD)
    assert read(first, card=CARD).values.max() == 1
    source.unlink()
    tar(source, {"b.png": png(7), "a.png": png(5)})
    again = next(image for image in find(source, card=CARD) if image.id == "a.png")
    assert read(again, card=CARD).values.max() == 5


def test_a_list_names_what_is_missing(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "set.txt").write_text("a.png\n\nb.png\n")
    with pytest.raises(InputError, match=r"line 3: no such file: b\.png"):
        find(tmp_path / "set.txt", card=CARD)


def test_the_report_finds_images_in_an_archive_again(tmp_path, capsys):
    folder = tmp_path / "demo"
    shutil.copytree(bundled.folder() / "demo", folder)
    source = packed("zip", tmp_path / "demo.zip", folder)
    network = bundled.folder() / "gtsrb_ciresan2012.onnx"
    asked = ["--limit", "3", "--radii", "5", "--trials", "5", "--permutations", "0", "--provider", "cpu"]
    code, _, err = runs.call(capsys, "run", network, "--images", source, "--out", tmp_path / "run", *asked)
    assert code in (None, 0), err
    code, _, err = runs.call(capsys, "report", tmp_path / "run")
    assert code in (None, 0), err
    assert "is no longer in" not in (tmp_path / "run/report.html").read_text(encoding="utf-8")
