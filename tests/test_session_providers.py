"""What the runtime can do here: models that it cannot run, providers, and the installation."""

import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import graphs
import numpy as np
import onnxruntime
import pytest
from graphs import edit
from onnx import TensorProto, helper
from sessions import open_session, random_rows

from analyzer import graph, session
from analyzer.errors import InputError, UsageError
from analyzer.session import guarded, providers, runtime
from analyzer.system import physical_memory


@pytest.fixture(autouse=True)
def fresh_caches():
    yield
    for cached in (runtime.load, providers.proof, providers._preload):
        if hasattr(cached, "cache_clear"):
            cached.cache_clear()


# --- models the runtime cannot run ------------------------------------------------------------------------------------


def test_a_newer_opset_than_the_runtimes_names_both(tmp_path, capfd):
    path, card = graphs.convnet(tmp_path, opset=60)
    graph.check(path)
    with pytest.raises(InputError, match=r"convnet\.onnx: uses opset 60, but onnxruntime \S+ knows opsets up to \d+"):
        open_session((path, card))
    assert capfd.readouterr() == ("", "")


def test_a_newer_ir_version_than_the_runtimes_names_both(tmp_path):
    path, card = graphs.convnet(tmp_path)
    edit(path, lambda m: setattr(m, "ir_version", 90))
    graph.check(path)
    with pytest.raises(InputError, match=r"IR version 90, but onnxruntime \S+ knows versions up to \d+"):
        open_session((path, card))


def test_a_model_that_fails_says_so_in_one_line_and_prints_nothing(tmp_path, capfd):
    path, card = graphs.convnet(tmp_path)
    edit(path, lambda m: m.graph.initializer.append(graphs.tensor("odd", np.ones((1, 13)))))
    edit(path, lambda m: m.graph.node[9].input.__setitem__(0, "odd_sum"))
    edit(path, lambda m: m.graph.node.insert(9, graphs.node("Add", "fc2 odd", "odd_sum")))
    with pytest.raises(InputError, match=r"convnet\.onnx: onnxruntime") as caught:
        open_session((path, card))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def looping(folder, *, endless):
    """The pixel-mean net after a Loop that ends after one turn, or never."""
    path, card = graphs.pixel_mean(folder)
    body = helper.make_graph(
        [
            graphs.node("Identity", "still", "on") if endless else graphs.node("Not", "still", "on"),
            graphs.node("Identity", "value", "next"),
        ],
        "body",
        [
            graphs.value("turn", [], TensorProto.INT64),
            graphs.value("still", [], TensorProto.BOOL),
            graphs.value("value", None),
        ],
        [graphs.value("on", [], TensorProto.BOOL), graphs.value("next", None)],
    )

    def change(model):
        model.graph.initializer.append(graphs.tensor("yes", True, bool))
        model.graph.node.append(helper.make_node("Loop", ["", "yes", "logits"], ["looped"], body=body))
        model.graph.output[0].name = "looped"

    edit(path, change)
    return path, card


def test_a_loop_that_ends_works(tmp_path):
    made = looping(tmp_path, endless=False)
    assert graph.prepare(made[0], card=made[1]).unbounded == ("Loop",)
    rows = random_rows(3)
    expected, _ = open_session(graphs.pixel_mean(tmp_path / "plain")).run(rows)
    np.testing.assert_allclose(open_session(made).run(rows)[0], expected, rtol=1e-6)


def test_an_endless_loop_meets_the_time_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(guarded, "SECONDS", 1.5)
    with pytest.raises(InputError, match=r"pixel_mean\.onnx: trying its Loop on one image, .* more than 1\.5 s"):
        open_session(looping(tmp_path, endless=True))


def test_a_tensor_of_unknown_size_is_tried_under_a_memory_limit(tmp_path):
    path, card = graphs.pixel_mean(tmp_path)

    def change(model):
        model.graph.initializer.append(graphs.tensor("base", [2.0], np.float32))
        model.graph.initializer.append(graphs.tensor("power", [44.0], np.float32))
        model.graph.node.append(graphs.node("Pow", "base power", "many"))
        model.graph.node.append(graphs.node("Cast", "many", "how_many", to=TensorProto.INT64))
        model.graph.node.append(graphs.node("ConstantOfShape", "how_many", "huge"))
        model.graph.node.append(graphs.node("ReduceMean", "huge", "zero", axes=[0], keepdims=1))
        model.graph.node.append(graphs.node("Add", "logits zero", "sum"))
        model.graph.output[0].name = "sum"

    edit(path, change)
    assert graph.prepare(path, card=card).unbounded == ("ConstantOfShape",)
    assert physical_memory() < 4 * 2**44
    with pytest.raises(InputError, match=r"pixel_mean\.onnx"):
        open_session((path, card))


# --- providers --------------------------------------------------------------------------------------------------------


class FakeRuntime:
    """ONNX Runtime as it would be with CUDA compiled in; every session really runs on the CPU.

    claims: what get_providers() says for a session that asked for CUDA. placed: operator -> provider.
    """

    def __init__(self, claims=providers.CUDA, placed=None, fails=None):
        self.claims, self.placed, self.fails, self.opened = claims, placed or {}, fails, []
        self.__version__ = "9.9"
        self.SessionOptions = onnxruntime.SessionOptions
        self.preloaded = 0

    def preload_dlls(self):
        self.preloaded += 1
        sys.stdout.write("Failed to load libcublasLt.so.13: no such file\n")

    def get_available_providers(self):
        return [providers.CUDA, "AzureExecutionProvider", providers.CPU]

    def InferenceSession(self, model, options, providers, **keywords):
        self.opened.append((providers, keywords))
        asked = providers[0][0]
        if asked != "CPUExecutionProvider" and self.fails:
            raise RuntimeError(self.fails)
        real = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        used = self.claims if asked == "CUDAExecutionProvider" else asked
        nodes = [n for part in real.get_provider_graph_assignment_info() for n in part.get_nodes()]
        parts = [
            SimpleNamespace(ep_name=self.placed.get(node.op_type, used), get_nodes=lambda node=node: [node])
            for node in nodes
        ]
        return SimpleNamespace(
            run=real.run,
            get_providers=lambda: [used, "CPUExecutionProvider"],
            get_provider_graph_assignment_info=lambda: parts,
        )


@pytest.fixture
def fake(monkeypatch):
    def install(**options):
        made = FakeRuntime(**options)
        monkeypatch.setattr(runtime, "load", lambda: made)
        return made

    return install


def test_cuda_is_asked_for_in_full_precision_and_without_fallback(tmp_path, fake, capfd):
    made = fake()
    run = open_session(graphs.convnet(tmp_path), provider="cuda")
    asked, keywords = made.opened[-1]
    assert [name for name, _ in asked] == [providers.CUDA, providers.CPU]
    assert asked[0][1]["use_tf32"] == "0" and keywords["enable_fallback"] == 0
    assert run.provider == providers.CUDA and run.notes == [] and made.preloaded == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["cuda", "CUDAExecutionProvider"])
def test_a_silent_fallback_is_an_error(tmp_path, fake, name):
    fake(claims=providers.CPU)
    with pytest.raises(UsageError, match=r"provider 'cuda': onnxruntime fell back to cpu .*libcublasLt\.so\.13"):
        open_session(graphs.convnet(tmp_path), provider=name)


def test_auto_takes_cuda_where_it_works_and_the_cpu_where_not(tmp_path, fake):
    fake()
    assert session.device_of("auto") == "cuda"
    assert open_session(graphs.convnet(tmp_path), provider="auto").provider == providers.CUDA
    providers.proof.cache_clear()
    fake(claims=providers.CPU)
    assert session.device_of("auto") == "cpu"
    assert open_session(graphs.convnet(tmp_path), provider="auto").provider == providers.CPU


def test_work_that_was_placed_on_the_cpu_is_an_error_where_cuda_was_named(tmp_path, fake):
    elsewhere = dict.fromkeys(("Conv", "Gemm", "FusedConv", "FusedGemm"), providers.CPU)
    fake(placed=elsewhere)
    with pytest.raises(UsageError, match=r"placed all of .*convnet\.onnx's work on the CPU"):
        open_session(graphs.convnet(tmp_path), provider="cuda")
    assert session.device_of("auto") == "cpu"


def test_single_operators_left_on_the_cpu_are_noted(tmp_path, fake):
    fake(placed={"MaxPool": providers.CPU, "Reshape": providers.CPU})
    run = open_session(graphs.convnet(tmp_path, fixed_batch=1), provider="cuda")
    assert run.notes == ["Left on the CPU by cuda: 1 MaxPool."]


def test_a_provider_that_breaks_is_a_usage_error(tmp_path, fake):
    fake(fails="CUDA failure 35: CUDA driver version is insufficient")
    with pytest.raises(UsageError, match="provider 'cuda': does not work here: CUDA failure 35"):
        open_session(graphs.convnet(tmp_path), provider="cuda")
    rows = {row["name"]: row for row in session.available()}
    assert set(rows) == {"cpu", "cuda"}
    assert rows["cuda"] == {
        "name": "cuda",
        "provider": providers.CUDA,
        "compiled": True,
        "works": False,
        "reason": "CUDA failure 35: CUDA driver version is insufficient",
    }
    assert rows["cpu"]["works"] is True


def test_auto_falls_back_when_the_model_itself_cannot_go_to_cuda(tmp_path, fake):
    made = fake()
    assert providers.proof(providers.CUDA) == (True, "")
    made.claims = providers.CPU
    run = open_session(graphs.convnet(tmp_path), provider="auto")
    assert run.provider == providers.CPU and run.notes == ["cuda cannot run this graph; the CPU does."]


def test_placement_and_judgement():
    used, notes = providers.judge(
        {"Conv": Counter({"A": 3, providers.CPU: 1}), "Shape": Counter({providers.CPU: 4})}, "A"
    )
    assert used and notes == ["Left on the CPU by a: 1 Conv."]
    assert providers.judge({"Relu": Counter({"A": 1})}, "A") == (True, [])
    assert providers.judge({"Conv": Counter({providers.CPU: 1}), "Relu": Counter({"A": 1})}, "A")[0] is False
    assert providers.judge(None, "A")[0] is True and "taken on trust" in providers.judge(None, "A")[1][0]
    assert providers.placement(SimpleNamespace()) is None


def test_unknown_and_absent_providers_are_usage_errors(tmp_path):
    made = graphs.constant(tmp_path)
    with pytest.raises(UsageError, match="provider 'gpu': unknown; use auto, cpu, cuda"):
        open_session(made, provider="gpu")
    if providers.CUDA not in onnxruntime.get_available_providers():
        with pytest.raises(UsageError, match=r"provider 'cuda': not part of the installed onnxruntime .*\[gpu\]"):
            open_session(made, provider="cuda")


def test_available_lists_the_cpu_as_working_and_cuda_in_any_case():
    rows = {row["name"]: row for row in session.available()}
    assert rows["cpu"] == {
        "name": "cpu",
        "provider": providers.CPU,
        "compiled": True,
        "works": True,
        "reason": "",
    }
    assert "cuda" in rows and (rows["cuda"]["works"] or rows["cuda"]["reason"])


# --- the installation -------------------------------------------------------------------------------------------------


def install(monkeypatch, names, module=None):
    runtime.load.cache_clear()
    monkeypatch.setattr(runtime, "_is_installed", lambda name: name in names)
    if module is not None:
        monkeypatch.setattr(runtime.importlib, "import_module", module)


def test_both_packages_installed_is_one_clear_message(monkeypatch):
    install(monkeypatch, {"onnxruntime", "onnxruntime-gpu"})
    with pytest.raises(UsageError, match=r"onnxruntime and onnxruntime-gpu are both installed.*pip uninstall"):
        session.available()


@pytest.mark.parametrize(
    ("names", "error", "says"),
    [
        (
            set(),
            ModuleNotFoundError("No module named 'onnxruntime'"),
            r"not installed; install the extra \[cpu\]",
        ),
        ({"onnxruntime"}, ImportError("libfoo.so: missing"), "cannot be imported: libfoo.so"),
    ],
)
def test_no_usable_package_is_one_clear_message(monkeypatch, names, error, says):
    def module(name):
        raise error

    install(monkeypatch, names, module)
    with pytest.raises(UsageError, match=says):
        session.available()


def test_importing_the_session_does_not_import_the_runtime():
    code = "import sys, analyzer.session; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
