"""Faults 23 to 34: the folder of images and what is in it. One test a fault, named by its number."""

import json
import os
import shutil
from collections import Counter

import graphs
import numpy as np
import pytest
import runs
from command_line import SMALL, Case, apart, environment, refused, worked
from pictures import encoded, png_by_hand
from PIL import Image

from analyzer import open_run
from analyzer.store import Run


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path, count=4)


def calibration(case):
    return json.loads((case.out / "calibration.json").read_text())


def test_23_an_empty_folder(case):
    for picture in case.pictures:
        picture.unlink()
    refused(case.run(), 4, case.images, "no image in this folder")
    assert not case.out.exists()


def test_24_truncated_images(case):
    whole = {picture: picture.read_bytes() for picture in case.pictures}
    for count, code in ((1, 0), (3, 4), (4, 4)):
        for picture in case.pictures[:count]:
            picture.write_bytes(whole[picture][:60])
        done = case.run()
        if code == 0:
            assert "3 of 4 images read, 1 unreadable" in worked(done).out
            assert "Unreadable: image_000.png: cannot be decoded" in done.out
            assert calibration(case)["counts"]["bad"] == 1
            shutil.rmtree(case.out)
        else:
            refused(done, 4, case.images, f"{count} of 4 images cannot be read")


def test_25_a_decompression_bomb_is_never_decoded(case):
    case.pictures[0].write_bytes(png_by_hand((20_000, 20_000), 8, 2, [b"\0"]))
    assert "Unreadable: image_000.png: the image is" in worked(case.run()).out
    (reason,) = [c["reason"] for c in calibration(case)["candidates"] if c["outcome"] == "bad"]
    assert reason.startswith("the image is above the limit of")


def test_26_a_name_that_lies_about_the_format(case):
    case.pictures[0].write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n(secret) run\n")
    assert "image_000.png: not an image in one of the formats" in worked(case.run()).out
    assert Run(case.out).calibration["counts"]["bad"] == 1


def test_27_other_colours_and_orientation_are_converted_as_documented(tmp_path):
    case = Case(tmp_path, count=1)
    picture = Image.open(case.pictures[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    made = {
        "cmyk.jpg": encoded(picture.convert("CMYK"), "JPEG"),
        "deep.png": png_by_hand((16, 16), 16, 0, [bytes(range(32))] * 16),
        "alpha.png": encoded(picture.convert("RGBA"), "PNG", compress_level=1),
        "palette.png": encoded(picture.quantize(16), "PNG"),
        "turned.png": encoded(picture, "PNG", exif=exif, compress_level=2),
    }
    for name, data in made.items():
        (case.images / name).write_bytes(data)
    worked(case.run())
    notes = {c["id"]: c.get("notes", []) for c in calibration(case)["candidates"]}
    assert notes == {
        "image_000.png": [],
        "cmyk.jpg": ["CMYK converted without a colour profile"],
        "deep.png": ["16 bits scaled to 8"],
        "alpha.png": ["transparency dropped"],
        "palette.png": ["palette looked up"],
        "turned.png": ["EXIF orientation applied"],
    }


def test_28_the_first_frame_of_an_animation_is_taken_and_said(case):
    first, other = (Image.open(picture) for picture in case.pictures[:2])
    (case.images / "moving.gif").write_bytes(encoded(first, "GIF", save_all=True, append_images=[other]))
    assert "1 image: first of several frames." in worked(case.run()).out


def test_29_one_name_in_two_folders(tmp_path):
    case = Case(tmp_path, count=1)  # one that lies in no folder, so that folders are no classes
    for number, folder in enumerate(("one", "two"), 1):
        runs.write_images(case.images / folder, 1, seed=number)
    worked(case.run())
    names = {"image_000.png", "one/image_000.png", "two/image_000.png"}
    assert {entry["id"] for entry in calibration(case)["selected"]} == names


def test_30_a_loop_of_links_is_not_followed(case):
    (case.images / "sub").mkdir()
    (case.images / "sub" / "again").symlink_to(case.images)
    (case.images / "self.png").symlink_to(case.images / "self.png")
    worked(case.run())
    assert calibration(case)["found"] == 4


def test_31_what_is_no_file_is_ignored(case):
    os.mkfifo(case.images / "pipe.png")
    (case.images / "device.png").symlink_to("/dev/zero")
    (case.images / "folder.png").mkdir()
    assert "4 of 4 images read" in worked(case.run()).out


@pytest.mark.parametrize("change", ["removed", "changed"])
def test_32_an_image_that_goes_while_the_run_goes_on(case, change):
    gone = []

    def spoil(progress):
        if progress.stage == "measuring" and not gone:
            gone.append(calibration(case)["selected"][-1]["id"])
            if change == "removed":
                (case.images / gone[0]).unlink()
            else:
                shutil.copyfile(case.images / calibration(case)["selected"][0]["id"], case.images / gone[0])

    found = runs.measure(case.model, case.images, case.out, progress=spoil)
    assert Counter(found.image_status.values.tolist()) == {0: 3, 2: 1}
    assert np.isnan(found.isotropy_score.sel(image=gone[0])).all()
    assert any("removed or changed" in warning for warning in Run(case.out).read_summary()["warnings"])


def test_33_neither_order_nor_locale_nor_case_changes_the_selection(tmp_path):
    names = ["b.png", "A.PNG", "ä.png", "Z.png", "a.png", "10.png", "9.png"]
    model = graphs.convnet(tmp_path / "model")[0]
    made = runs.write_images(tmp_path / "made", len(names))
    chosen = []
    for number, locale in enumerate(("C", "C.UTF-8")):
        images, out = tmp_path / f"images{number}", tmp_path / f"out{number}"
        images.mkdir()
        for name, picture in sorted(zip(names, made, strict=True), reverse=bool(number)):
            shutil.copyfile(picture, images / name)
        command = ["run", model, "--images", images, "--out", out, "--limit", "4", *SMALL]
        worked(apart(*command, env=environment(LC_ALL=locale, PYTHONUTF8="0")))
        chosen.append([entry["id"] for entry in json.loads((out / "calibration.json").read_text())["selected"]])
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 4


def test_34_fewer_good_images_than_asked_or_none(case):
    said = worked(case.run("--limit", "9")).out
    assert "4 measured (asked: 9)" in said
    assert "4 images count, 9 were asked for; none is used twice." in said
    with open_run(case.out) as found:
        assert len(set(found.image.values)) == 4
    shutil.rmtree(case.out)
    refused(case.run("--min-confidence", "1"), 4, case.images, "best: image_", "Lower --min-confidence")
