import copy
import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer import card as cards
from analyzer.errors import InputError, UsageError

DOCUMENT = {
    "schema": 1,
    "input": {
        "name": "x",
        "layout": "NCHW",
        "size": [4, 6],
        "channels": "RGB",
        "resize": {"shorter_side": 8, "crop": "centre"},
        "mean": [1, 2.5, 3],
        "std": [1, 1, 2],
    },
    "output": {"name": "y", "kind": "logits", "labels": ["a", "b"]},
    "feature": {"name": "f"},
    "source": {"framework": "none", "sizes": [1, 2]},
}


def changed(path, value):
    """DOCUMENT with the key at a dotted path set, or removed where value is `...`."""
    document = copy.deepcopy(DOCUMENT)
    *parents, key = path.split(".")
    target = document
    for parent in parents:
        target = target[parent]
    if value is ...:
        del target[key]
    else:
        target[key] = value
    return document


def test_parse():
    card = cards.parse(DOCUMENT)
    assert card == cards.Card(
        layout="NCHW",
        size=(4, 6),
        channels="RGB",
        resize=cards.Resize("shorter_side", 8, "bilinear"),
        mean=(1.0, 2.5, 3.0),
        std=(1.0, 1.0, 2.0),
        kind="logits",
        input_name="x",
        output_name="y",
        labels=("a", "b"),
        feature_name="f",
        source={"framework": "none", "sizes": [1, 2]},
    )
    assert card.pixel_shape == (3, 4, 6)
    assert all(type(n) is int for n in card.size)
    assert all(type(n) is float for n in card.mean + card.std)


def test_optional_parts_may_be_absent():
    document = copy.deepcopy(DOCUMENT)
    del document["feature"], document["source"]
    del document["input"]["name"], document["output"]["name"], document["output"]["labels"]
    card = cards.parse(document)
    assert (card.input_name, card.output_name, card.labels, card.feature_name, card.source) == (None,) * 4 + ({},)


@pytest.mark.parametrize(
    ("resize", "expected"),
    [
        ({"stretch": True}, cards.Resize("stretch")),
        ({"stretch": [256, 300], "crop": "centre"}, cards.Resize("stretch", through=(256, 300))),
        ({"stretch": [256, 300]}, cards.Resize("stretch", through=(256, 300))),
        ({"none": True}, cards.Resize("none")),
        ({"none": True, "interpolation": "bicubic"}, cards.Resize("none", None, "bicubic")),
        ({"stretch": False, "none": True}, cards.Resize("none")),
        (
            {"shorter_side": 9, "crop": "centre", "interpolation": "lanczos"},
            cards.Resize("shorter_side", 9, "lanczos"),
        ),
        ({"letterbox": True, "pad": 114}, cards.Resize("letterbox", pad=(114.0,))),
        ({"letterbox": True, "pad": [1, 2.5, 255]}, cards.Resize("letterbox", pad=(1.0, 2.5, 255.0))),
        ({"longer_side": 9, "pad": 0}, cards.Resize("longer_side", 9, pad=(0.0,))),
        ({"crop_pct": 0.875}, cards.Resize("crop_pct", crop_pct=0.875)),
        (
            {"crop_pct": 1, "crop": "centre", "interpolation": "bicubic"},
            cards.Resize("crop_pct", None, "bicubic", crop_pct=1.0),
        ),
        ({"stretch": True, "antialias": False}, cards.Resize("stretch", antialias=False)),
        (
            {"shorter_side": 9, "crop": "centre", "antialias": True},
            cards.Resize("shorter_side", 9, antialias=True),
        ),
    ],
)
def test_resize_forms(resize, expected):
    card = cards.parse(changed("input.resize", resize))
    assert card.resize == expected
    assert cards.parse(json.loads(json.dumps(cards.to_document(card)))) == card


@pytest.mark.parametrize(
    ("resize", "digest"),
    [
        (cards.Resize("shorter_side", 8), "4809552649ff6980"),
        (cards.Resize("stretch", None, "bicubic"), "4d634f3549048dd0"),
        (cards.Resize("none"), "d16677b6fe0cdae9"),
    ],
)
def test_digests_of_cards_stay_what_they_were(resize, digest):
    card = dataclasses.replace(cards.parse(DOCUMENT), resize=resize)
    assert cards.digest(card)[:16] == digest


@pytest.mark.parametrize("channels", ["L", "BGR"])
def test_pixel_shape_of_other_channels(channels):
    document = changed("input.channels", channels)
    count = cards.CHANNELS[channels]
    document["input"] |= {"mean": [0] * count, "std": [1] * count}
    assert cards.parse(document).pixel_shape == (count, 4, 6)


REQUIRED = [
    "schema",
    "input",
    "input.layout",
    "input.size",
    "input.channels",
    "input.resize",
    "input.resize.crop",
    "input.mean",
    "input.std",
    "output",
    "output.kind",
]


@pytest.mark.parametrize("path", REQUIRED)
def test_missing_key_is_named(path):
    with pytest.raises(InputError) as e:
        cards.parse(changed(path, ...), where="net.json")
    assert str(e.value) == f"net.json: {path} is missing"


@pytest.mark.parametrize(
    "path", ["more", "input.more", "input.resize.more", "output.more", "feature.more", "input.resize.stretch"]
)
def test_unknown_key_is_named(path):
    with pytest.raises(InputError) as e:
        cards.parse(changed(path, True), where="net.json")
    said, _, known = str(e.value).partition("; known here: ")
    assert said == f"net.json: unknown key {path}" and known and path.rpartition(".")[2] not in known.split(", ")


WRONG = [
    ("schema", 2),
    ("schema", True),
    ("schema", "1"),
    ("schema", 10**400),
    ("input", []),
    ("input.name", 3),
    ("input.layout", "CHW"),
    ("input.layout", None),
    ("input.size", 224),
    ("input.size", [224]),
    ("input.size", [224, 224, 3]),
    ("input.size", [224, 0]),
    ("input.size", [224, 224.0]),
    ("input.size", [True, 1]),
    ("input.size", [10**400, 1]),
    ("input.channels", "rgb"),
    ("input.resize", {}),
    ("input.resize", {"none": False}),
    ("input.resize.letterbox", 1),
    ("input.resize.pad", -1),
    ("input.resize.pad", 256),
    ("input.resize.pad", True),
    ("input.resize.pad", "grey"),
    ("input.resize.pad", None),
    ("input.resize.pad", float("nan")),
    ("input.resize.pad", 10**400),
    ("input.resize.pad", [1, 2]),
    ("input.resize.pad", [1, 2, 256]),
    ("input.resize.pad", [1, 2, float("nan")]),
    ("input.resize.longer_side", 0),
    ("input.resize.longer_side", 1.5),
    ("input.resize.crop_pct", 0),
    ("input.resize.crop_pct", 1.1),
    ("input.resize.crop_pct", -0.5),
    ("input.resize.crop_pct", "0.9"),
    ("input.resize.crop_pct", True),
    ("input.resize.antialias", 0),
    ("input.resize.antialias", "no"),
    ("input.resize", "none"),
    ("input.resize.shorter_side", 0),
    ("input.resize.shorter_side", None),
    ("input.resize.shorter_side", 1.5),
    ("input.resize.crop", "top"),
    ("input.resize.interpolation", "area"),
    ("input.mean", [1, 2]),
    ("input.mean", [1, 2, "3"]),
    ("input.mean", [1, 2, True]),
    ("input.mean", [1, 2, float("nan")]),
    ("input.mean", [1, 2, 10**400]),
    ("input.mean", [1, [2], 3]),
    ("input.std", [1, 1, 0]),
    ("input.std", [1, 1, -1]),
    ("input.std", [1, 1, float("inf")]),
    ("output", None),
    ("output.kind", "softmax"),
    ("output.name", {}),
    ("output.labels", "ab"),
    ("output.labels", ["a", 1]),
    ("output.labels", []),
    ("feature", "fc2"),
    ("feature.name", 1),
    ("source", []),
    ("source", {"x": [float("nan")]}),
]


@pytest.mark.parametrize(("path", "value"), WRONG, ids=[f"{path}={value!r:.20}" for path, value in WRONG])
def test_wrong_value_names_its_key(path, value):
    document = changed(path, value)
    key = path.removeprefix("input.resize.")
    if key in ("letterbox", "longer_side", "crop_pct", "pad"):
        document["input"]["resize"] = {key: value} if key != "pad" else {"letterbox": True, "pad": value}
    with pytest.raises(InputError) as e:
        cards.parse(document, where="net.json")
    message = str(e.value)
    assert message.startswith(f"net.json: {path} ")
    assert "\n" not in message
    assert len(message) < 250


@pytest.mark.parametrize(
    ("resize", "says"),
    [
        ({"letterbox": True}, "input.resize.pad is missing"),
        ({"longer_side": 5}, "input.resize.pad is missing"),
        ({"stretch": True, "pad": 0}, "unknown key input.resize.pad"),
        ({"stretch": [256], "crop": "centre"}, "input.resize.stretch must be 2 integers above 0, not [256]"),
        ({"stretch": [0, 9], "crop": "centre"}, "input.resize.stretch must be 2 integers above 0, not [0, 9]"),
        ({"stretch": [9, 9], "crop": "top"}, "input.resize.crop must be one of centre, not 'top'"),
        ({"shorter_side": 8, "crop": "centre", "pad": 0}, "unknown key input.resize.pad"),
        ({"crop_pct": 0.9, "longer_side": 5, "pad": 1}, "unknown key input.resize.crop_pct"),
        ({"letterbox": True, "pad": 0, "crop": "centre"}, "unknown key input.resize.crop"),
        ({"crop_pct": 0.9, "crop": "top"}, "input.resize.crop must be one of centre, not 'top'"),
        ({"none": True, "antialias": False}, "unknown key input.resize.antialias"),
        (
            {"stretch": True, "antialias": False, "interpolation": "bicubic"},
            "input.resize.antialias false is for bilinear only, not bicubic",
        ),
        (
            {"letterbx": True},
            "input.resize must have one of the keys shorter_side, longer_side, crop_pct, letterbox, stretch or none",
        ),
    ],
)
def test_resize_keys_that_do_not_go_together(resize, says):
    with pytest.raises(InputError) as e:
        cards.parse(changed("input.resize", resize), where="net.json")
    assert str(e.value).partition("; known here: ")[0] == f"net.json: {says}"


def test_one_label_for_two_classes_is_refused():
    with pytest.raises(InputError) as e:
        cards.parse(changed("output.labels", ["cat", "crane", "dog", "crane"]), where="net.json")
    assert str(e.value) == "net.json: output.labels has 'crane' for classes 1, 3; make the names differ"


@pytest.mark.parametrize("document", [None, 1, [], "x"])
def test_not_an_object(document):
    with pytest.raises(InputError, match=r"net\.json: the card must be an object"):
        cards.parse(document, where="net.json")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"schema": ' + b"9" * 5000 + b"}",
        b'{"schema": 1, "schema": 1}',
    ],
    ids=["empty", "truncated", "utf-16", "deep", "long number", "key twice"],
)
def test_unreadable_file_is_named(tmp_path, content):
    path = tmp_path / "net.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"net\.json: cannot be read as a JSON card") as e:
        cards.read(path)
    assert len(str(e.value)) < 400 + len(str(path))


def test_key_given_twice_is_named(tmp_path):
    path = tmp_path / "net.json"
    path.write_text(json.dumps(DOCUMENT).replace('"mean":', '"mean": [9, 9, 9], "mean":'))
    with pytest.raises(InputError, match="'mean' is given twice"):
        cards.read(path)


def test_missing_file_says_how_to_write_one(tmp_path):
    with pytest.raises(InputError, match=r"inspect MODEL` with `write_card`"):
        cards.read(tmp_path / "net.json")


def test_folder_instead_of_a_card(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        cards.read(tmp_path)


def test_write_where_nothing_can_be_written(tmp_path):
    with pytest.raises(UsageError, match=r"net\.json"):
        cards.write(cards.parse(DOCUMENT), tmp_path / "gone" / "net.json")


def test_byte_order_mark(tmp_path):
    path = tmp_path / "net.json"
    path.write_text(json.dumps(DOCUMENT), encoding="utf-8-sig")
    assert cards.read(path) == cards.parse(DOCUMENT)


def test_beside(tmp_path):
    assert cards.beside(tmp_path / "a.b.onnx") == tmp_path / "a.b.json"


@pytest.mark.parametrize(
    ("mean", "std", "says"),
    [
        (
            [0.485, 0.456, 0.406],
            [0.229, 0.224, 0.225],
            "input.mean to [123.675, 116.28, 103.53] and input.std to [58.395",
        ),
        ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5], "input.mean to [127.5, 127.5, 127.5] and input.std to [127.5"),
        ([0, 0, 0], [0.5, 0.5, 0.5], "input.std to [127.5"),
        ([0.485, 0.456, 0.406], [1, 1, 1], "input.mean to [123.675"),
        ([0.485] * 3, [58.4] * 3, "input.mean to [123.675, 123.675, 123.675] and input.std to [58.4"),
        ([127.5] * 3, [0.5] * 3, "input.mean to [127.5, 127.5, 127.5] and input.std to [127.5"),
    ],
)
def test_mean_and_std_of_pixels_in_0_to_1_are_refused_with_the_right_numbers(mean, std, says):
    document = changed("input.mean", mean)
    document["input"]["std"] = std
    with pytest.raises(InputError) as refused:
        cards.parse(document, where="net.json")
    assert "net.json" in str(refused.value) and says in str(refused.value)
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("mean", "std"),
    [([0, 0, 0], [1, 1, 1]), ([0, 0, 0], [255, 255, 255]), ([1, 0, 1], [2, 1, 1]), ([104, 117, 123], [1] * 3)],
)
def test_mean_and_std_of_grey_levels_stay(mean, std):
    document = changed("input.mean", mean)
    document["input"]["std"] = std
    assert cards.parse(document).std == tuple(std)


@pytest.mark.parametrize(("key", "value"), [("mean", 1e300), ("mean", -1e7), ("std", 1e-45), ("std", 1e300)])
def test_mean_and_std_beyond_float32_pixels_are_refused(key, value):
    document = changed("input.mean", [100.0] * 3)
    document["input"]["std"] = [50.0] * 3
    document["input"][key] = [50.0, value, 50.0]
    with pytest.raises(InputError, match=rf"input\.{key} .* is out of range"):
        cards.parse(document)


def test_a_sigmoid_is_a_kind():
    assert cards.parse(changed("output.kind", "sigmoid")).kind == "sigmoid"


finite = st.floats(allow_nan=False, allow_infinity=False)
# A surrogate pair in two halves cannot come out of JSON as two, so halves of one kind only.
text = st.text(st.characters(exclude_categories=["Cs"]) | st.just("\ud800"), max_size=8)
plain = st.recursive(st.none() | st.booleans() | st.integers() | finite | text, lambda x: st.lists(x, max_size=3))


@st.composite
def valid_cards(draw):
    channels = draw(st.sampled_from(sorted(cards.CHANNELS)))
    count = cards.CHANNELS[channels]
    kind = draw(st.sampled_from(["shorter_side", "longer_side", "crop_pct", "letterbox", "stretch", "none"]))
    side = draw(st.integers(1, 2000)) if kind.endswith("_side") else None
    level = st.floats(0, 255)
    pad = draw(st.tuples(level) | st.tuples(*[level] * count)) if kind in ("longer_side", "letterbox") else None
    share = draw(st.floats(0, 1, exclude_min=True)) if kind == "crop_pct" else None
    interpolation = draw(st.sampled_from(cards.INTERPOLATIONS))
    antialias = kind == "none" or interpolation != "bilinear" or draw(st.booleans())
    # As of grey levels: not of pixels in 0..1, and not beyond what float32 pixels resolve.
    levels = st.just(0.0) | st.floats(1.5, 1e6) | st.floats(-1e6, -1e-6)
    return cards.Card(
        layout=draw(st.sampled_from(["NCHW", "NHWC"])),
        size=draw(st.tuples(st.integers(1, 2000), st.integers(1, 2000))),
        channels=channels,
        resize=cards.Resize(kind, side, interpolation, pad, share, antialias),
        mean=tuple(draw(st.lists(levels, min_size=count, max_size=count))),
        std=tuple(draw(st.lists(st.floats(1.5, 1e6), min_size=count, max_size=count))),
        kind=draw(st.sampled_from(cards.KINDS)),
        input_name=draw(st.none() | text),
        output_name=draw(st.none() | text),
        labels=draw(st.none() | st.lists(text, min_size=1, max_size=4, unique=True).map(tuple)),
        feature_name=draw(st.none() | text),
        source=draw(st.dictionaries(text, plain, max_size=3)),
    )


@settings(derandomize=True, deadline=None)
@given(valid_cards())
def test_round_trip(tmp_path_factory, card):
    path = tmp_path_factory.mktemp("cards") / "net.json"
    cards.write(card, path)
    assert cards.read(path) == card
    assert cards.parse(cards.to_document(card)) == card


def test_written_card_is_readable_text(tmp_path):
    path = tmp_path / "net.json"
    card = dataclasses.replace(cards.parse(DOCUMENT), labels=("雪", "x"))
    cards.write(card, path)
    assert "雪" in path.read_text(encoding="utf-8")
