"""What the exporters share and the analyzer relies on: names, the verification's inputs, the tensors' names."""

import numpy as np
import onnx
import pytest
from exporting import loaded, write_pictures
from onnx import TensorProto, helper

from analyzer import card as cards
from analyzer import images
from analyzer.errors import InputError, UsageError
from analyzer.study.preprocessing import Preprocessing


@pytest.fixture(scope="module")
def common():
    yield from loaded("_common")


def document(**changed):
    pixels = {
        "name": "x",
        "layout": "NCHW",
        "size": [20, 24],
        "channels": "RGB",
        "resize": {"stretch": True},
        "mean": [10, 20, 30],
        "std": [2, 4, 8],
        **changed,
    }
    return {"schema": 1, "input": pixels, "output": {"kind": "logits"}}


def test_known_finds_a_name_in_any_case_and_lists_the_near_ones(common):
    names = ["resnet18", "resnet34", "VGG16"]
    assert common.known("vgg16", names) == "VGG16"
    with pytest.raises(UsageError, match=r"no network 'resnet19'; near it: resnet18, resnet34$"):
        common.known("resnet19", names)
    with pytest.raises(UsageError, match="there are: VGG16, resnet18, resnet34"):
        common.known("zzzz", names)


def test_picture_has_the_spectrum_of_a_photograph(common):
    pixels = common.picture(np.random.default_rng(0), (3, 128, 128))
    assert (pixels.shape, pixels.dtype) == ((3, 128, 128), np.float32)
    assert pixels.min() >= 0 and pixels.max() <= 255 and pixels.std() > 30
    power = np.abs(np.fft.fft2(pixels[0] - pixels[0].mean())) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128))) * 128
    low, high = (power[(frequency > a) & (frequency < 2 * a)].mean() for a in (4, 32))
    assert 20 < low / high < 200  # 1/f amplitude: power falls by 8^2 = 64
    assert np.corrcoef(pixels[0].ravel(), pixels[1].ravel())[0, 1] > 0.5


def test_batches_of_one_and_five_differ_and_follow_the_seed(common, tmp_path):
    first, again, other = (common.batches(document(), seed=s) for s in (0, 0, 1))
    assert [b["x"].shape for b in first] == [(1, 3, 20, 24)] * 2 + [(5, 3, 20, 24)] * 2
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a["x"], b["x"])
        assert np.abs(a["x"] - c["x"]).max() > 1
    assert len(first[common.SCENES]["x"]) == 5

    photos = write_pictures(tmp_path / "photos" / "sub", 6, (30, 40)).parent
    (photos / "broken.png").write_bytes(b"PNG")
    real = common.batches(document(), seed=0, photos=photos)
    assert [len(b["x"]) for b in real] == [1, 1, 5, 5, 1, 5]
    card = cards.parse(document())
    path = sorted(photos.rglob("scene*"))[4]
    seen = images.read(images.ImageFile("a", path, None), card=card).values
    np.testing.assert_allclose(real[-1]["x"][4], (seen - [[[10]], [[20]], [[30]]]) / [[[2]], [[4]], [[8]]], rtol=1e-5)


def test_photos_that_are_too_few_are_counted(common, tmp_path):
    photos = write_pictures(tmp_path / "photos", 2, (30, 40))
    with pytest.raises(InputError, match="needs 5 readable images, found 2"):
        common.batches(document(), seed=0, photos=photos)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("channels", ["RGB", "BGR", "L"])
def test_inputs_are_what_the_analyzer_feeds(common, layout, channels):
    count = cards.CHANNELS[channels]
    card = cards.parse(document(layout=layout, channels=channels, mean=[10, 20, 30][:count], std=[2, 4, 8][:count]))
    pixels = np.random.default_rng(0).uniform(0, 255, (1, *card.pixel_shape)).astype(np.float32)
    flat = Preprocessing(card).apply(pixels[0])
    fed = flat.reshape(card.pixel_shape)[:: -1 if channels == "BGR" else 1]
    expected = fed.transpose(1, 2, 0) if layout == "NHWC" else fed
    np.testing.assert_allclose(common.normalised(pixels, card)[0], expected, rtol=1e-6)


def relu(names=("a", "b")):
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [f"{n}_0", 3]) for n in names]
    node = helper.make_node("Relu", [names[0]], [names[1]])
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])


def test_tensors_are_renamed_everywhere_and_the_batch_is_free(common):
    model = relu()
    common.rename_tensors(model, {"a": "input", "b": "logits"})
    common.free_batch(model)
    onnx.checker.check_model(model, full_check=True)
    assert (list(model.graph.node[0].input), list(model.graph.node[0].output)) == (["input"], ["logits"])
    dims = [v.type.tensor_type.shape.dim[0].dim_param for v in [*model.graph.input, *model.graph.output]]
    assert dims == ["batch", "batch"]


def test_difference_of_outputs_that_are_zero(common, tmp_path):
    path = tmp_path / "relu.onnx"
    onnx.save_model(relu(), path)
    batch = {"a": -np.ones((2, 3), np.float32)}
    zeros = np.zeros((2, 3), np.float32)
    assert common.difference(path, [batch], lambda _: {"b": zeros}) == 0
    batch = {"a": np.ones((2, 3), np.float32)}
    assert common.difference(path, [batch], lambda _: {"b": zeros}) == float("inf")
    assert common.difference(path, [batch], lambda _: {"b": zeros + 1.25}) == pytest.approx(0.2)


def test_a_label_of_two_classes_gets_its_index(common):
    assert common.distinct(["tench", "crane", "dog", "crane"]) == ["tench", "crane (1)", "dog", "crane (3)"]
