"""Cards from what people have: each source with the structure that its tool writes."""

import json

import graphs
import numpy as np
import onnx
import pytest
import runs
from onnx import helper, numpy_helper

from analyzer import bundled
from analyzer import card as cards
from analyzer.drafting import draft
from analyzer.errors import InputError, UsageError

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
IN_GREY_LEVELS = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


@pytest.fixture
def model(tmp_path):
    """A network without a card."""
    path, _ = graphs.convnet(tmp_path)
    cards.beside(path).unlink()
    return path


def beside(model, name, document):
    (model.parent / name).write_text(json.dumps(document))
    return draft(model)


def read_back(tmp_path, drafted):
    """What is drafted is a card."""
    file = tmp_path / "drafted.json"
    file.write_text(json.dumps(drafted.document))
    return cards.read(file)


def test_without_any_source_all_is_a_guess(model):
    drafted = draft(model)
    assert drafted.origins == {}
    assert any(item.startswith("mean and std") for item in drafted.document["source"]["fill_in"])


HUGGING_FACE = {
    "vit": (
        {
            "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3, "image_processor_type": "ViTImageProcessor",
            "resample": 2, "rescale_factor": 0.00392156862745098,
            "size": {"height": 16, "width": 16},
        },
        ([127.5] * 3, [127.5] * 3, "RGB"),
        {"stretch": True, "interpolation": "bilinear"},
    ),
    "old extractor": (
        {
            "crop_pct": 0.875, "do_normalize": True, "do_resize": True, **IMAGENET,
            "feature_extractor_type": "ConvNextFeatureExtractor", "resample": 3, "size": 16,
        },
        (*IN_GREY_LEVELS, "RGB"),
        {"crop_pct": 0.875, "crop": "centre", "interpolation": "bicubic"},
    ),
    "clip": (
        {
            "crop_size": {"height": 16, "width": 16}, "do_center_crop": True, "do_convert_rgb": True, "do_resize": True,
            "do_normalize": True, "do_rescale": True, **IMAGENET, "image_processor_type": "CLIPImageProcessor",
            "resample": 3, "size": {"shortest_edge": 20},
        },
        (*IN_GREY_LEVELS, "RGB"),
        {"shorter_side": 20, "crop": "centre", "interpolation": "bicubic"},
    ),
    "flipped, not normalised": (
        {
            "crop_size": {"height": 16, "width": 16}, "do_center_crop": True, "do_flip_channel_order": True,
            "do_resize": True, "image_processor_type": "MobileViTImageProcessor", "resample": 2,
            "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 18},
        },
        ([0.0] * 3, [255.0] * 3, "BGR"),
        {"shorter_side": 18, "crop": "centre", "interpolation": "bilinear"},
    ),
    "not rescaled": (
        {
            "do_normalize": True, "do_rescale": False, "do_resize": True, "image_mean": [127.0] * 3,
            "image_std": [128.0] * 3, "image_processor_type": "ViTImageProcessor", "resample": 0, "size": 16,
        },
        ([127.0] * 3, [128.0] * 3, "RGB"),
        {"stretch": True, "interpolation": "nearest"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_hugging_face(model, tmp_path, name):
    document, (mean, std, channels), resize = HUGGING_FACE[name]
    drafted = beside(model, "preprocessor_config.json", document)
    pixels = drafted.document["input"]
    assert (pixels["mean"], pixels["std"], pixels["channels"], pixels["size"]) == (mean, std, channels, [16, 16])
    assert pixels["resize"] == resize
    assert drafted.origins["input.mean"] == "preprocessor_config.json"
    left = drafted.document["source"]["fill_in"]
    assert not [item for item in left if item.startswith(("mean and std", "RGB", "resize"))]
    assert read_back(tmp_path, drafted).mean == tuple(mean)


def test_hugging_face_labels(model, tmp_path):
    names = {"0": "cat", "1": "dog", "10": "owl", "2": "elk", "3": "bee"}
    del names["10"]
    drafted = beside(model, "config.json", {"architectures": ["ViT"], "id2label": {**names, "4": "owl"}})
    assert drafted.document["output"]["labels"] == ["cat", "dog", "elk", "bee", "owl"]
    assert drafted.origins["output.labels"] == "config.json"
    placeholders = {str(k): f"LABEL_{k}" for k in range(5)}
    assert "labels" not in beside(model, "config.json", {"id2label": placeholders}).document["output"]


def test_timm(model, tmp_path):
    settings = {
        "custom_load": False, "input_size": [3, 16, 16], "fixed_input_size": False, "interpolation": "bicubic",
        "crop_pct": 0.95, "crop_mode": "center", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
        "num_classes": 5, "pool_size": [7, 7], "first_conv": "conv1", "classifier": "fc",
    }  # fmt: skip
    whole = {"architecture": "resnet50", "num_classes": 5, "pretrained_cfg": settings, "label_names": list("abcde")}
    drafted = beside(model, "config.json", whole)
    pixels = drafted.document["input"]
    assert (pixels["mean"], pixels["std"]) == IN_GREY_LEVELS
    assert pixels["resize"] == {"crop_pct": 0.95, "crop": "centre", "interpolation": "bicubic"}
    assert drafted.document["output"]["labels"] == list("abcde")
    assert read_back(tmp_path, drafted).resize.crop_pct == 0.95
    squashed = beside(model, "config.json", {"pretrained_cfg": {**settings, "crop_mode": "squash", "crop_pct": 0.8}})
    assert squashed.document["input"]["resize"]["stretch"] == [20, 20]
    odd = beside(model, "config.json", {"pretrained_cfg": {**settings, "crop_mode": "border"}})
    assert any("crop_mode 'border'" in item for item in odd.document["source"]["fill_in"])


def test_torchvision(model, tmp_path):
    document = {
        "crop_size": [16], "resize_size": [18], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
        "interpolation": "InterpolationMode.BILINEAR", "antialias": True,
    }  # fmt: skip
    pixels = beside(model, "transforms.json", document).document["input"]
    assert (pixels["mean"], pixels["std"]) == IN_GREY_LEVELS
    assert pixels["resize"] == {"shorter_side": 18, "crop": "centre", "interpolation": "bilinear"}
    document["antialias"] = False
    assert beside(model, "transforms.json", document).document["input"]["resize"]["antialias"] is False


@pytest.mark.parametrize(
    ("mode", "channels", "mean", "std"),
    [
        ("caffe", "BGR", [103.939, 116.779, 123.68], [1.0] * 3),
        ("tf", "RGB", [127.5] * 3, [127.5] * 3),
        ("torch", "RGB", *IN_GREY_LEVELS),
    ],
)
def test_keras(model, mode, channels, mean, std):
    pixels = draft(model, source=f"keras:{mode}").document["input"]
    assert (pixels["channels"], pixels["mean"], pixels["std"]) == (channels, mean, std)


def with_metadata(model, **properties):
    proto = onnx.load(model)
    helper.set_model_props(proto, properties)
    onnx.save(proto, model)
    return draft(model)


def test_ultralytics(model, tmp_path):
    names = "{0: 'cat', 1: 'dog', 2: 'elk', 3: 'bee', 4: 'owl'}"
    drafted = with_metadata(model, imgsz="[16, 16]", names=names, task="classify", stride="1", batch="1")
    pixels = drafted.document["input"]
    assert (pixels["mean"], pixels["std"], pixels["channels"]) == ([0.0] * 3, [255.0] * 3, "RGB")
    assert pixels["resize"] == {"shorter_side": 16, "crop": "centre", "interpolation": "bilinear"}
    assert drafted.document["output"]["labels"] == ["cat", "dog", "elk", "bee", "owl"]
    assert drafted.origins["input.mean"] == "Ultralytics metadata of the ONNX file"


def test_ultralytics_detectors_are_drafted_as_embeddings(model):
    drafted = with_metadata(model, imgsz="[640, 640]", names="{0: 'cat'}", task="detect").document
    assert drafted["output"]["kind"] == "embedding" and "labels" not in drafted["output"]
    assert any("its task is 'detect'" in item for item in drafted["source"]["fill_in"])


def test_image_metadata(model):
    properties = {"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "Normalized_0_1"}
    pixels = with_metadata(model, **properties).document["input"]
    assert (pixels["channels"], pixels["mean"], pixels["std"]) == ("BGR", [0.0] * 3, [255.0] * 3)
    odd = with_metadata(model, **{"Image.NominalPixelRange": "NominalRange_16_235"})
    assert any("NominalRange_16_235" in item for item in odd.document["source"]["fill_in"])


def test_openvino(model, tmp_path):
    text = """<?xml version="1.0"?><net name="x"><layers/><rt_info><model_info>
      <mean_values value="123.675 116.28 103.53"/><scale_values value="58.395 57.12 57.375"/>
      <reverse_input_channels value="True"/><resize_type value="standard"/><labels value="a b c d e"/>
    </model_info></rt_info></net>"""
    model.with_suffix(".xml").write_text(text)
    drafted = draft(model)
    pixels = drafted.document["input"]
    assert (pixels["mean"], pixels["std"], pixels["channels"]) == (*IN_GREY_LEVELS, "RGB")
    assert pixels["resize"] == {"stretch": True, "interpolation": "bilinear", "antialias": False}
    assert drafted.document["output"]["labels"] == list("abcde")
    assert read_back(tmp_path, drafted).resize.antialias is False
    model.with_suffix(".xml").write_text('<!DOCTYPE x [<!ENTITY a "b">]>' + text)
    with pytest.raises(InputError, match="entities"):
        draft(model)


def test_openvino_inside_the_onnx_file(model):
    properties = {"model_info mean_values": "127.5", "model_info scale_values": "127.5"}
    with pytest.raises(InputError, match="another number of channels"):
        with_metadata(model, **properties)
    properties = {"model_info mean_values": "0 0 0", "model_info scale_values": "255 255 255"}
    assert with_metadata(model, **properties).document["input"]["std"] == [255.0] * 3


def test_another_card(model, tmp_path):
    _, other = graphs.convnet(tmp_path, name="other", channels="BGR")
    drafted = draft(model, source=str(tmp_path / "other.json"))
    assert drafted.document["input"]["channels"] == other.channels
    assert drafted.document["input"]["mean"] == list(other.mean)


def test_preprocessing_inside_the_graph(model, tmp_path):
    proto = onnx.load(model)
    first = proto.graph.input[0].name
    for node in proto.graph.node:
        for k, name in enumerate(node.input):
            if name == first:
                node.input[k] = "inside/normalised"
    constants = {"inside/mean": np.float32([[[128.0]]] * 3)[None], "inside/std": np.float32([[[64.0]]] * 3)[None]}
    proto.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    proto.graph.node.insert(0, helper.make_node("Div", ["inside/centred", "inside/std"], ["inside/normalised"]))
    proto.graph.node.insert(0, helper.make_node("Sub", [first, "inside/mean"], ["inside/centred"]))
    onnx.save(proto, model)
    drafted = draft(model)
    assert drafted.origins["input.mean"] == "the graph itself"
    assert (drafted.document["input"]["mean"], drafted.document["input"]["std"]) == ([0.0] * 3, [1.0] * 3)
    assert any("begins with Sub, Div" in item for item in drafted.document["source"]["fill_in"])


def test_sources_that_disagree_are_named(model):
    (model.parent / "config.json").write_text(json.dumps({"pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}))
    drafted = beside(model, "preprocessor_config.json", HUGGING_FACE["clip"][0])
    assert drafted.document["input"]["mean"] == IN_GREY_LEVELS[0]
    assert any(
        item.startswith("input.mean is from preprocessor_config.json; config.json says [127.5")
        for item in drafted.document["source"]["fill_in"]
    )


@pytest.mark.parametrize(
    ("source", "said"),
    [("keras:jax", "keras:caffe"), ("nowhere.json", "no such file"), ("list.json", "nothing that is known")],
)
def test_what_is_no_source(model, tmp_path, source, said):
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(UsageError, match=said):
        draft(model, source=source if ":" in source else str(tmp_path / source))


@pytest.mark.parametrize(
    "text", ["{", '{"image_mean": "a", "image_std": 1}', '{"image_mean": [1, "x", 3], "image_std": [1]}']
)
def test_a_damaged_configuration_is_named(model, text):
    (model.parent / "preprocessor_config.json").write_text(text)
    with pytest.raises(InputError, match="preprocessor_config"):
        draft(model)


def test_from_the_command_line(model, capsys):
    (model.parent / "preprocessor_config.json").write_text(json.dumps(HUGGING_FACE["vit"][0]))
    code, out, _ = runs.call(capsys, "inspect", model, "--write-card")
    assert code in (None, 0)
    assert "✓ input.mean: preprocessor_config.json" in out
    written = cards.read(cards.beside(model))
    assert written.mean == (127.5,) * 3
    assert written.source["from"]["input.mean"] == "preprocessor_config.json"
    code, _, err = runs.call(capsys, "inspect", model, "--from", "keras:tf")
    assert code == 2
    assert "--write-card" in err


def test_a_card_of_this_very_file_is_known_by_its_hash(tmp_path):
    model = tmp_path / "renamed.onnx"
    model.write_bytes((bundled.folder() / "gtsrb_aghdam2015.onnx").read_bytes())
    drafted = draft(model)
    own = cards.read(bundled.folder() / "gtsrb_aghdam2015.json")
    assert drafted.origins["input.mean"] == "the card gtsrb_aghdam2015.json of this very file"
    assert tuple(drafted.document["input"]["mean"]) == own.mean
    assert tuple(drafted.document["output"]["labels"]) == own.labels
    assert not drafted.document["source"]["fill_in"]
