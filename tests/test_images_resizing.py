"""The ways to the size: letterbox, longer side, timm's crop share, and interpolation without low-pass."""

import math

import numpy as np
import pytest
from pictures import card, png, read, refusal
from PIL import Image

from analyzer.card import Resize


def noise(height, width, channels=3):
    values = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return values if channels == 3 else values[..., 0]


def pillow(array, height, width, kind=Image.Resampling.BILINEAR):
    return np.asarray(Image.fromarray(array).resize((width, height), kind), np.float32)


def half_pixel_bilinear(array, height, width):
    """One output pixel at a time: the point (i + 0.5) * scale - 0.5, its four neighbours held inside the image."""
    out = np.empty((height, width, array.shape[2]))
    for i in range(height):
        for j in range(width):
            y = (i + 0.5) * array.shape[0] / height - 0.5
            x = (j + 0.5) * array.shape[1] / width - 0.5
            total = 0.0
            for row, column in np.ndindex(2, 2):
                v, u = math.floor(y) + row, math.floor(x) + column
                weight = (1 - abs(y - v)) * (1 - abs(x - u))
                inside = array[min(max(v, 0), array.shape[0] - 1), min(max(u, 0), array.shape[1] - 1)]
                total = total + weight * inside.astype(np.float64)
            out[i, j] = total
    return out


# ------------------------------------------------------------------ without low-pass

SIZES = [((31, 47), (16, 16)), ((31, 47), (7, 40)), ((9, 5), (20, 30)), ((1, 1), (3, 4)), ((40, 1), (5, 1))]


@pytest.mark.parametrize(("given", "size"), [*SIZES, ((12, 8), (12, 8)), ((64, 64), (8, 8))])
def test_without_antialias_is_half_pixel_bilinear(tmp_path, given, size):
    array = noise(*given)
    out = read(tmp_path, png(array), card=card(size, resize=Resize("stretch", antialias=False))).values
    exact = half_pixel_bilinear(array, *size).transpose(2, 0, 1)
    assert np.array_equal(out, np.rint(out))
    assert np.abs(out - exact).max() <= 0.5 + 1e-9


def test_without_antialias_a_quarter_of_the_size_reads_the_middle_four_of_sixteen(tmp_path):
    array = noise(8, 8, 1)
    out = read(tmp_path, png(array), card=card((2, 2), channels="L", resize=Resize("stretch", antialias=False)))
    expected = [[array[r : r + 2, c : c + 2].mean() for c in (1, 5)] for r in (1, 5)]
    np.testing.assert_allclose(out.values[0], np.floor(np.array(expected) + 0.5))


def test_antialias_matters_where_the_image_shrinks_only(tmp_path):
    array = noise(40, 40)
    for size, differs in (((10, 10), True), ((80, 60), False)):
        plain, smooth = (
            read(tmp_path, png(array), card=card(size, resize=Resize("stretch", antialias=antialias))).values
            for antialias in (False, True)
        )
        assert (np.abs(plain - smooth).max() > 30) == differs
        assert differs or np.abs(plain - smooth).max() <= 1  # Pillow rounds between the two directions


def test_without_antialias_the_shorter_side_is_scaled_whole_and_cut(tmp_path):
    array = noise(31, 50)
    out = read(tmp_path, png(array), card=card((10, 12), resize=Resize("shorter_side", 16, antialias=False))).values
    whole = np.floor(half_pixel_bilinear(array, 16, 25) + 0.5)
    np.testing.assert_array_equal(out, whole[3:13, 6:18].transpose(2, 0, 1))  # 6.5 to even


def test_without_antialias_a_grey_card(tmp_path):
    array = noise(9, 9, 1)
    out = read(tmp_path, png(array), card=card((4, 4), channels="L", resize=Resize("stretch", antialias=False)))
    exact = half_pixel_bilinear(array[..., None], 4, 4)
    np.testing.assert_allclose(out.values[0], exact[..., 0], atol=0.5 + 1e-9)


# ------------------------------------------------------------------ padding

LETTERBOX = [
    ((20, 40), (32, 32), (16, 32), (8, 0)),
    ((40, 20), (32, 32), (32, 16), (0, 8)),
    ((10, 30), (33, 32), (11, 32), (11, 0)),
    ((30, 31), (16, 16), (15, 16), (0, 0)),  # one row of rest: below
    ((5, 5), (16, 24), (16, 16), (0, 4)),  # small images grow
    ((1, 1000), (8, 8), (1, 8), (3, 0)),  # never less than a pixel
    ((16, 24), (16, 24), (16, 24), (0, 0)),
]


@pytest.mark.parametrize(("given", "size", "scaled", "corner"), LETTERBOX)
def test_letterbox(tmp_path, given, size, scaled, corner):
    array = noise(*given)
    out = read(tmp_path, png(array), card=card(size, resize=Resize("letterbox", pad=(114.0,)))).values
    expected = np.full((*size, 3), 114, np.float32)
    (top, left), (height, width) = corner, scaled
    expected[top : top + height, left : left + width] = pillow(array, *scaled)
    np.testing.assert_array_equal(out, expected.transpose(2, 0, 1))


@pytest.mark.parametrize(("channels", "shown"), [("RGB", [10, 20.5, 30]), ("BGR", [30, 20.5, 10])])
def test_pad_is_in_the_cards_channel_order_and_may_be_a_fraction(tmp_path, channels, shown):
    resize = Resize("letterbox", pad=(10.0, 20.5, 30.0))
    out = read(tmp_path, png(noise(4, 8)), card=card((8, 8), channels=channels, resize=resize)).values
    np.testing.assert_array_equal(out[:, 0, 0], shown)
    np.testing.assert_array_equal(out[:, -1, -1], shown)


LONGER = [
    # given, side, size, scaled, (top, left) in the size, (top, left) of the cut
    ((20, 40), 32, (32, 32), (16, 32), (8, 0), (0, 0)),
    ((20, 40), 24, (32, 32), (12, 24), (10, 4), (0, 0)),
    ((20, 40), 48, (32, 32), (24, 48), (4, 0), (0, 8)),
    ((41, 20), 33, (33, 33), (33, 16), (0, 8), (0, 0)),  # 16.1; 17 columns of rest
    ((1000, 1), 8, (8, 8), (8, 1), (0, 3), (0, 0)),
]


@pytest.mark.parametrize(("given", "side", "size", "scaled", "corner", "cut"), LONGER)
def test_longer_side(tmp_path, given, side, size, scaled, corner, cut):
    array = noise(*given)
    out = read(tmp_path, png(array), card=card(size, resize=Resize("longer_side", side, pad=(7.0,)))).values
    inside = pillow(array, *scaled)[cut[0] : cut[0] + size[0], cut[1] : cut[1] + size[1]]
    expected = np.full((*size, 3), 7, np.float32)
    expected[corner[0] : corner[0] + len(inside), corner[1] : corner[1] + inside.shape[1]] = inside
    np.testing.assert_array_equal(out, expected.transpose(2, 0, 1))


def test_letterbox_without_antialias(tmp_path):
    array = noise(20, 40)
    resize = Resize("letterbox", pad=(0.0,), antialias=False)
    out = read(tmp_path, png(array), card=card((10, 10), resize=resize)).values.transpose(1, 2, 0)
    np.testing.assert_array_equal(out[2:7], np.floor(half_pixel_bilinear(array, 5, 10) + 0.5))
    assert not out[:2].any() and not out[7:].any()


# ------------------------------------------------------------------ timm's crop share

SHARES = [
    # given, share, size, scaled, (top, left)
    ((300, 400), 0.875, (28, 28), (32, 42), (2, 7)),
    ((400, 300), 0.9, (28, 28), (41, 31), (6, 2)),  # floor(31.1); int(31 * 400 / 300); 6.5 and 1.5 to even
    ((100, 100), 1.0, (28, 28), (28, 28), (0, 0)),
    ((300, 400), 0.9, (28, 40), (33, 44), (2, 2)),  # not square: floor 31 and 44; 400 / 44 is the smaller ratio
]


@pytest.mark.parametrize(("given", "share", "size", "scaled", "corner"), SHARES)
def test_crop_share(tmp_path, given, share, size, scaled, corner):
    array = noise(*given)
    out = read(tmp_path, png(array), card=card(size, resize=Resize("crop_pct", crop_pct=share))).values
    expected = pillow(array, *scaled)[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]
    np.testing.assert_array_equal(out, expected.transpose(2, 0, 1))


@pytest.mark.parametrize(("side", "share"), [(224, 0.875), (224, 0.9), (288, 0.95), (240, 0.9375), (380, 0.922)])
def test_crop_share_of_a_square_is_timms_shorter_side(tmp_path, side, share):
    array = noise(100, 130)
    by_share, by_side = (
        read(tmp_path, png(array), card=card((side, side), resize=resize)).values
        for resize in (
            Resize("crop_pct", crop_pct=share, interpolation="bicubic"),
            Resize("shorter_side", math.floor(side / share), "bicubic"),
        )
    )
    np.testing.assert_array_equal(by_share, by_side)


@pytest.mark.parametrize(
    "resize",
    [
        Resize("crop_pct", crop_pct=1e-9),
        Resize("crop_pct", crop_pct=5e-324),
        Resize("longer_side", 10**400, pad=(0.0,)),
        Resize("longer_side", 10**6, pad=(0.0,)),
        Resize("stretch", antialias=False),
        Resize("letterbox", pad=(0.0,)),
    ],
    ids=lambda r: f"{r.kind} {r.side or r.crop_pct!r:.12}",
)
def test_a_monster_is_refused(tmp_path, resize):
    size = (10**5, 10**5) if resize.kind in ("letterbox", "stretch") else (20, 20)
    refusal(tmp_path, png(noise(30, 30)), card=card(size, resize=resize))


@pytest.mark.parametrize("antialias", [True, False])
def test_stretched_to_a_size_of_its_own_and_cut(tmp_path, antialias):
    """As open_nsfw's own preprocessing: Pillow's bilinear to 40 x 48, then the centre."""
    array = np.random.default_rng(5).integers(0, 256, (61, 97, 3), dtype=np.uint8)
    resize = Resize("stretch", through=(40, 48), antialias=antialias)
    out = read(tmp_path, png(array), card=card((32, 36), resize=resize)).values
    assert out.shape == (3, 32, 36)
    whole = read(tmp_path, png(array), card=card((40, 48), resize=Resize("stretch", antialias=antialias))).values
    np.testing.assert_array_equal(out, whole[:, 4:36, 6:42])
    if antialias:
        expected = Image.fromarray(array).resize((48, 40), Image.Resampling.BILINEAR).crop((6, 4, 42, 36))
        np.testing.assert_array_equal(out, np.asarray(expected, np.float32).transpose(2, 0, 1))


def test_a_stretch_smaller_than_the_size_is_said(tmp_path):
    array = np.zeros((50, 50, 3), np.uint8)
    said = refusal(tmp_path, png(array), card=card((32, 32), resize=Resize("stretch", through=(30, 30))))
    assert "30 x 30 after scaling, smaller than the crop of 32 x 32" in said
