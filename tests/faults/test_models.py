"""Faults 1 to 22: the model, its runtime and its device. One test a fault, named by its number."""

import os
import pickle
from pathlib import Path

import graphs
import numpy as np
import pytest
from command_line import Case, apart, call, environment, refused, worked
from onnx import helper
from test_graph_files import model_cache, point
from test_session import Memory
from test_session_providers import looping

import analyzer
from analyzer import open_run
from analyzer.session import guarded
from analyzer.store import Run


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path)


@pytest.fixture
def external(tmp_path):
    """A network whose weights lie in a file beside it."""
    return graphs.convnet(tmp_path / "home", external_data=True)[0]


def looked_at(model, code, *said):
    """Refused at every door that takes a model."""
    refused(call("inspect", model), code, model, *said)


@pytest.mark.parametrize("damage", ["empty", "truncated", "words"])
def test_01_no_onnx(case, damage):
    whole = case.model.read_bytes()
    case.model.write_bytes({"empty": b"", "truncated": whole[: len(whole) // 2], "words": b"just some words"}[damage])
    refused(case.run(), 4, case.model)
    looked_at(case.model, 4)
    assert not case.out.exists()


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("kind", ["pickle", "pt", "npz"])
def test_02_a_pickle_is_never_unpickled(case, kind):
    target = case.folder / "exploded"
    if kind == "npz":
        with case.model.open("wb") as file:
            np.savez(file, weights=np.array([Bomb(target)], dtype=object))
    else:
        header = b"" if kind == "pickle" else b"PK\x03\x04" + bytes(26)
        case.model.write_bytes(header + pickle.dumps(Bomb(target)))
    refused(case.run(), 4, case.model, "pickle" if kind == "pickle" else "zip")
    assert not target.exists()


@pytest.mark.parametrize("location", ["../secret", "a/../../secret", "/etc/passwd"])
def test_03_external_data_elsewhere(external, location):
    (external.parent.parent / "secret").write_bytes(bytes(5000))
    looked_at(point(external, location=location), 4, location, "plain path")


def test_04_a_link_that_leads_out_and_one_within_a_model_cache(external, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(5000))
    (external.parent / "leak").symlink_to(tmp_path / "secret")
    looked_at(point(external, location="leak"), 4, "leak", "leads out")
    cached, card = model_cache(tmp_path)
    worked(call("inspect", cached))
    worked(call("inspect", cached, "--write-card"))
    assert card.size == (16, 16)


def test_05_a_hard_link_is_said(external, tmp_path):
    os.link(external.with_suffix(".data"), tmp_path / "other")
    case = Case(tmp_path, model=external)
    assert "convnet.data is a hard link" in worked(case.run()).out
    assert "convnet.data is a hard link" in worked(call("inspect", external)).out


@pytest.mark.parametrize("entries", [{"offset": 10**9}, {"offset": -4}, {"length": 10**12}])
def test_06_offset_or_length_out_of_bounds(external, entries):
    looked_at(point(external, **entries), 4, "convnet.data")


def test_07_an_address_in_memory(external):
    looked_at(point(external, location="*/_ORT_MEM_ADDR_/*"), 4, "address in memory")


def test_08_external_data_that_is_missing(external):
    external.with_suffix(".data").unlink()
    looked_at(external, 4, "convnet.data", "missing", "put it beside the model")


def test_09_a_checker_that_crashes(case, monkeypatch):
    """The child that checks imports a parser that ends its process as a segmentation fault would."""
    (case.folder / "onnx.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", str(case.folder))
    refused(case.run(), 4, case.model, "crashed (signal 11)")


@pytest.mark.parametrize("kind", ["declared", "constant of shape"])
def test_10_tensors_larger_than_memory(case, kind):
    def change(model):
        if kind == "declared":
            weight = next(t for t in model.graph.initializer if t.name == "w4")
            weight.dims[:] = [2**20, 2**20]
            weight.ClearField("raw_data")
            graphs.refer(weight, location=case.model.name)
        else:
            model.graph.initializer.append(graphs.tensor("big_shape", [2**34], np.int64))
            model.graph.node.append(helper.make_node("ConstantOfShape", ["big_shape"], ["big"]))

    graphs.edit(case.model, change)
    refused(case.run(), 4, case.model, "GiB")
    assert not case.out.exists()


def test_11_an_endless_loop(tmp_path, monkeypatch):
    monkeypatch.setattr(guarded, "SECONDS", 1.5)
    case = Case(tmp_path, size=8, model=looping(tmp_path / "model", endless=True)[0])
    refused(case.run(), 4, case.model, "Loop", "more than 1.5 s")


def test_12_a_custom_operator(case):
    def change(model):
        model.graph.node[1].op_type, model.graph.node[1].domain = "Evil", "my.domain"
        model.opset_import.append(helper.make_opsetid("my.domain", 1))

    graphs.edit(case.model, change)
    refused(case.run(), 4, case.model, "my.domain:Evil", "no library is ever loaded")


def test_13_an_opset_newer_than_the_runtime(tmp_path):
    case = Case(tmp_path, model=graphs.convnet(tmp_path / "model", opset=60)[0])
    refused(case.run(), 4, case.model, "opset 60", "opsets up to")


def test_14_several_outputs_and_a_card_that_names_none(case):
    def change(model):
        model.graph.output.append(graphs.value("fc2", ["N", 12]))

    graphs.edit(case.model, change)
    refused(case.run(), 4, case.model, "logits", "fc2")
    shown = worked(call("inspect", case.model)).out
    assert "logits" in shown and "fc2" in shown
    case.model.with_suffix(".json").unlink()
    refused(case.run(), 4, case.model, "analyzer inspect")
    graphs.edit(case.model, lambda m: m.graph.input.append(graphs.value("mask", ["N", 12])))
    refused(call("inspect", case.model, "--write-card"), 4, case.model, "x, mask")


def test_15_a_fixed_batch_of_one(tmp_path):
    case = Case(tmp_path, model=graphs.convnet(tmp_path / "model", fixed_batch=1)[0])
    worked(case.run())


@pytest.mark.parametrize("variant", [{"layout": "NHWC"}, {"input_type": "uint8"}, {"input_type": "float16"}])
def test_16_other_layouts_and_types(tmp_path, variant):
    case = Case(tmp_path, model=graphs.convnet(tmp_path / "model", **variant)[0])
    if variant == {"input_type": "uint8"}:
        refused(case.run(), 4, case.model, "uint8", "--clip and --round")
        worked(case.run("--clip", "--round"))
    else:
        worked(case.run())


def test_17_an_output_that_is_not_finite_is_marked(tmp_path):
    case = Case(tmp_path, count=4, size=8)
    means = sorted(float(np.asarray(analyzer.images.pixels.Image.open(p)).mean()) for p in case.pictures)
    case.model, _ = graphs.nan(tmp_path / "model", threshold=(means[2] + means[3]) / 2)
    said = worked(case.run()).out
    assert "1 with outputs that are not finite" in said
    assert "nan" not in said.replace("nan.onnx", "").replace(str(tmp_path), "")
    with open_run(case.out) as found:
        assert found.sizes["image"] == 3
        undefined = np.isnan(found.isotropy_score.values).any(axis=(1, 2))
        assert ((found.image_status.values != 0) >= undefined).all()


def test_18_a_constant_output_is_undefined_with_its_reason(tmp_path):
    case = Case(tmp_path, size=8, model=graphs.constant(tmp_path / "model")[0])
    assert "Mantel's r is undefined in 6 of 6" in worked(case.run()).out
    summary = Run(case.out).read_summary()
    assert (summary["mantel_r_mean@1"]["value"], summary["mantel_r_mean@1"]["n"]) == (None, 0)
    assert summary["lipschitz_median"]["value"] is None


def test_19_a_model_that_changed_since(case):
    before = case.measured().contents()
    graphs.convnet(case.folder / "model", seed=9)
    refused(case.run(), 2, case.out, "model", "another --out")
    assert case.contents() == before


def test_20_cuda_asked_and_not_to_be_had(case):
    """Without the GPU build of the runtime; what a silent fallback gets is in test_session_providers.py, by a fake."""
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this runtime has CUDA: test_session_providers.py has the silent fallback")
    refused(case.run("--provider", "cuda"), 2, "cuda", "[gpu]")
    assert not case.out.exists()


def test_21_both_runtimes_or_none(case):
    both, none = case.folder / "both", case.folder / "none"
    for name in ("onnxruntime", "onnxruntime_gpu"):
        (both / f"{name}-1.0.dist-info").mkdir(parents=True)
        (both / f"{name}-1.0.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    refused(apart(*case.command(), env=environment(both)), 2, "onnxruntime and onnxruntime-gpu are both", "pip")
    none.mkdir()
    (none / "onnxruntime.py").write_text("raise ModuleNotFoundError('No module named onnxruntime')\n")
    refused(apart(*case.command(), env=environment(none)), 2, "onnxruntime", "install")


def test_22_too_little_memory_for_the_batch(tmp_path, monkeypatch):
    """By a runtime that fails as a full device does above two rows: no device can be filled here on purpose."""
    case = Case(tmp_path)
    Memory(monkeypatch, room=2)
    assert "Out of memory: batch size halved to 2." in worked(case.run()).out
    run = Run(case.out)
    assert run.context["batch_size"] == 2
    warned = run.read_summary()["warnings"]
    assert "Out of memory: batch size halved to 2." in warned
    assert any(warning.startswith("Batches were not checked to the end:") for warning in warned)
    worked(call("verify", case.out))
