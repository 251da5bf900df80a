"""What the runtime can do here: models that it cannot run, providers, and the installation."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import graphs
import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import edit
from onnx import TensorProto, helper
from sessions import open_session, random_rows

from analyzer import graph, session
from analyzer.errors import InputError, UsageError
from analyzer.graph import work
from analyzer.session import Backend, guarded, parse_options, placement, plugins, providers, proving, runtime
from analyzer.system import physical_memory


@pytest.fixture(autouse=True)
def fresh_caches():
    yield
    for cached in (runtime.load, proving.proof, providers._preload, plugins.installed):
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
        self.levels, self.given = [], []
        self.GraphOptimizationLevel = onnxruntime.GraphOptimizationLevel
        self.preloaded = 0

    def preload_dlls(self):
        self.preloaded += 1
        sys.stdout.write("Failed to load libcublasLt.so.13: no such file\n")

    def get_available_providers(self):
        return [providers.CUDA, "AzureExecutionProvider", providers.CPU]

    def SessionOptions(self):
        """The real options, but for devices of plugin providers, which are kept in `given`."""
        fake, real = self, onnxruntime.SessionOptions()

        class Options:
            def __getattr__(self, name):
                return getattr(real, name)

            def __setattr__(self, name, value):
                setattr(real, name, value)

            def add_provider_for_devices(self, devices, options):
                fake.given.append((devices, options))

            real_options = property(lambda self: real)

        return Options()

    def InferenceSession(self, model, options, providers=None, **keywords):
        self.opened.append((providers, keywords))
        self.levels.append(options.graph_optimization_level)
        asked = providers[0][0] if providers else self.given[-1][0][0].ep_name
        if asked != "CPUExecutionProvider" and self.fails:
            raise RuntimeError(self.fails)
        real = onnxruntime.InferenceSession(model, options.real_options, providers=["CPUExecutionProvider"])
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
    proving.proof.cache_clear()
    fake(claims=providers.CPU)
    assert session.device_of("auto") == "cpu"
    assert open_session(graphs.convnet(tmp_path), provider="auto").provider == providers.CPU


def test_work_that_was_placed_on_the_cpu_is_an_error_where_cuda_was_named(tmp_path, fake):
    elsewhere = dict.fromkeys(("Conv", "Gemm", "FusedConv", "FusedGemm"), providers.CPU)
    fake(placed=elsewhere)
    with pytest.raises(UsageError, match=r"runs 0% of the work of .*convnet\.onnx \(cpu 100%\)"):
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
    assert proving.proof(providers.CUDA) == (True, "")
    made.claims = providers.CPU
    run = open_session(graphs.convnet(tmp_path), provider="auto")
    assert run.provider == providers.CPU and len(run.notes) == 1
    assert run.notes[0].startswith("The CPU is used: provider 'cuda': onnxruntime fell back to cpu")


def placed(**operators):
    """Nodes by operator: Conv="cuda cuda cpu" puts three convolutions, named Conv0, Conv1, Conv2."""
    return [
        placement.Placed(providers.NAMES[where], operator, f"{operator}{number}")
        for operator, places in operators.items()
        for number, where in enumerate(places.split())
    ]


def test_work_is_weighed_by_multiply_adds():
    nodes = placed(Conv="cuda cuda cpu", Relu="cuda")
    assert placement.shares(nodes, {"Conv0": 10, "Conv1": 20, "Conv2": 70}) == {providers.CUDA: 0.3, providers.CPU: 0.7}
    assert placement.shares(nodes, {})[providers.CUDA] == pytest.approx(2 / 3)  # of three convolutions
    assert placement.shares(placed(Relu="cuda", Add="cpu"), {}) == {providers.CUDA: 0.5, providers.CPU: 0.5}
    assert placement.shares(None, {"Conv0": 1}) == {} == placement.shares([], {})
    assert placement.left_on_cpu(placed(Conv="cpu cuda cpu", Shape="cpu", MaxPool="cpu")) == "2 Conv, 1 MaxPool"
    assert placement.placement(SimpleNamespace()) is None


def session_of(nodes):
    parts = [SimpleNamespace(ep_name=p, get_nodes=lambda n=n: [n]) for p, n in nodes]
    return SimpleNamespace(get_provider_graph_assignment_info=lambda: parts)


@pytest.mark.parametrize(("share", "refused"), [(0.5, True), (0.31, True), (0.3, False), (0.0, False)])
def test_less_than_the_share_of_the_work_is_an_error(tmp_path, share, refused):
    made = graphs.convnet(tmp_path)
    prepared = graph.prepare(made[0], card=made[1])
    work = dict(prepared.work)
    assert len(work) >= 2 and all(work.values())
    first = next(iter(work))
    total = sum(work.values())
    prepared = dataclasses.replace(prepared, work=((first, 3 * total), ("rest", 7 * total)))
    nodes = [(providers.TENSORRT, SimpleNamespace(op_type="Conv", name=first))]
    nodes += [(providers.CUDA, SimpleNamespace(op_type="Conv", name="rest"))]
    backend = Backend(providers.TENSORRT, share=share)
    if refused:
        with pytest.raises(UsageError, match=r"'tensorrt': runs 30% of the work of .*\(cuda 70%\)"):
            proving.of_work(session_of(nodes), prepared, backend)
    else:
        assert proving.of_work(session_of(nodes), prepared, backend) == [
            "tensorrt runs 30.0% of the work, by multiply-adds."
        ]


def test_a_provider_that_does_nothing_is_refused_whatever_the_share(tmp_path):
    made = graphs.convnet(tmp_path)
    prepared = graph.prepare(made[0], card=made[1])
    nodes = [(providers.CPU, SimpleNamespace(op_type="Conv", name=prepared.work[0][0]))]
    with pytest.raises(UsageError, match=r"runs 0% of the work .*\(cpu 100%\)"):
        proving.of_work(session_of(nodes), prepared, Backend(providers.CUDA, share=0.0))


def multiply_adds_of(folder, operator, shapes, made, **attributes):
    """Multiply-adds of one operator whose inputs and output have these shapes."""
    path, _ = graphs.linear(folder, np.ones((4, 48)), size=(4, 4))
    model = onnx.load(path)
    index = SimpleNamespace(shape=lambda name: {**shapes, "out": made}.get(name))
    del model.graph.node[:]
    model.graph.node.append(helper.make_node(operator, list(shapes), ["out"], name="n", **attributes))
    return dict(work.multiply_adds(model, index, None)).get("n")


@pytest.mark.parametrize(
    ("operator", "shapes", "made", "attributes", "count"),
    [
        ("Conv", {"x": (None, 8, 6, 6), "w": (16, 2, 3, 3)}, (None, 16, 4, 4), {"group": 4}, 16 * 4 * 4 * 2 * 9),
        ("ConvTranspose", {"x": (None, 8, 4, 4), "w": (8, 3, 2, 2)}, (None, 3, 8, 8), {}, 8 * 16 * 3 * 4),
        ("Gemm", {"a": (None, 7), "b": (5, 7)}, (None, 5), {"transB": 1}, 35),
        ("Gemm", {"a": (7, None), "b": (7, 5)}, (None, 5), {"transA": 1}, 35),
        ("MatMul", {"a": (None, 4, 6, 7), "b": (None, 4, 7, 5)}, (None, 4, 6, 5), {}, 4 * 6 * 5 * 7),
        ("MatMul", {"a": (None, 16, 10), "b": (10,)}, (None, 16), {}, 160),
        ("MatMul", {"a": (None, 16, None), "b": (10,)}, (None, 16), {}, None),
        ("QLinearConv", {"x": (2, 3, 6, 6), "s": (), "z": (), "w": (4, 3, 3, 3)}, (None, 4, 4, 4), {}, 64 * 27),
    ],
)
def test_multiply_adds_of_each_operator(tmp_path, operator, shapes, made, attributes, count):
    assert multiply_adds_of(tmp_path, operator, shapes, made, **attributes) == count


def test_what_the_runtime_fuses_keeps_its_work(tmp_path):
    """MatMul and Add become one node of another name; the weights are still those of the graph."""
    path, card = graphs.linear(tmp_path, np.ones((4, 48)), size=(4, 4))

    def change(model):
        model.graph.node[1].CopyFrom(graphs.node("MatMul", "flat matrix_t", "product"))
        model.graph.initializer.append(graphs.tensor("matrix_t", np.ones((48, 4))))
        model.graph.initializer.append(graphs.tensor("bias", np.ones(4)))
        model.graph.node.insert(2, graphs.node("Add", "product bias", "feature"))

    edit(path, change)
    prepared = graph.prepare(path, card=card)
    nodes = placement.placement(providers.open_session(prepared, Backend(providers.CPU, 1)))
    work_of = dict(prepared.work)
    assert sum(work_of.values()) == 48 * 4 + 4 * 2
    assert sum(placement._work_of(placed.node, work_of) for placed in nodes) == sum(work_of.values())


def test_multiply_adds_are_those_of_the_textbook(tmp_path):
    path, card = graphs.convnet(tmp_path)
    model = onnx.load(path)
    weights = {t.name: tuple(t.dims) for t in model.graph.initializer}
    shapes = {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    expected = []
    for node in model.graph.node:
        if node.op_type == "Conv":
            plane = [d.dim_value for d in shapes[node.output[0]].type.tensor_type.shape.dim][2:]
            expected.append(int(np.prod(weights[node.input[1]]) * np.prod(plane)))
        elif node.op_type == "Gemm":
            expected.append(int(np.prod(weights[node.input[1]])))
    assert sorted(count for _, count in graph.prepare(path, card=card).work) == sorted(expected) != []


def prepared_of(made):
    path, card = made
    return graph.prepare(path, card=card)


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", ["bad", "=1", " =1"])
def test_an_option_without_key_or_value_is_refused(pair):
    with pytest.raises(UsageError, match="expected KEY=VALUE"):
        parse_options([pair])
    with pytest.raises(UsageError, match="a: given twice"):
        parse_options(["a=1", "a=2"])
    assert parse_options(["a=b=c", " d = e "]) == {"a": "b=c", "d": "e"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"optimizations": "most"}, "`optimizations` 'most': must be one of all, extended, basic, off"),
        ({"share": 1.1}, "`provider_share` 1.1"),
        ({"share": float("nan")}, "`provider_share` nan"),
        ({"threads": 0}, "`threads` 0: must lie in 1..1024"),
        ({"options": {"a": "1"}}, "`provider_option` needs the `provider`"),
    ],
)
def test_a_backend_that_cannot_be_is_refused(options, says):
    with pytest.raises(UsageError, match=re.escape(says)):
        Backend(**options)


def test_the_cpu_takes_no_options(tmp_path):
    path, card = graphs.convnet(tmp_path)
    with pytest.raises(UsageError, match="provider 'cpu': takes no `provider_option`"):
        session.Session(
            graph.prepare(path, card=card), pixel_shape=card.pixel_shape, backend=Backend("cpu", options={"a": "1"})
        )


def test_options_reach_the_provider_over_the_defaults_and_are_settings(tmp_path, fake):
    made = fake()
    path, card = graphs.convnet(tmp_path)
    backend = Backend("cuda", options={"use_tf32": "1", "gpu_mem_limit": "9"}, optimizations="basic")
    run = session.Session(graph.prepare(path, card=card), pixel_shape=card.pixel_shape, backend=backend)
    asked = dict(made.opened[-1][0])[providers.CUDA]
    assert (asked["use_tf32"], asked["gpu_mem_limit"], asked["cudnn_conv_algo_search"]) == ("1", "9", "EXHAUSTIVE")
    assert made.levels[-1] == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert run.settings["optimizations"] == "basic" and run.settings["options"]["use_tf32"] == "1"
    assert "instructions" not in run.settings


def test_engines_are_cached_in_a_folder_of_the_model_or_not_at_all(tmp_path):
    first = prepared_of(graphs.convnet(tmp_path / "a"))
    other = prepared_of(graphs.convnet(tmp_path / "b", seed=1))
    options = {"trt_engine_cache_enable": "1", "trt_timing_cache_path": str(tmp_path / "times")}
    options["trt_engine_cache_path"] = str(tmp_path / "engines")
    backend = Backend(providers.TENSORRT, options=options)
    given = [providers._options(backend, prepared, lean=False) for prepared in (first, other, first)]
    paths = [one["trt_engine_cache_path"] for one in given]
    assert paths[0] == paths[2] != paths[1] and all(Path(path).is_dir() for path in paths)
    for changed in ({"options": {**options, "trt_bf16_enable": "1"}}, {"optimizations": "off"}):
        one = providers._options(dataclasses.replace(backend, **changed), first, lean=False)
        assert one["trt_engine_cache_path"] not in paths
    assert providers._options(backend, first, lean=False, file=True)["trt_engine_cache_path"] not in paths
    assert given[0]["trt_timing_cache_path"] != given[1]["trt_timing_cache_path"]
    assert providers._options(Backend(providers.TENSORRT), first, lean=False)["trt_engine_cache_enable"] == "0"
    with pytest.raises(UsageError, match="trt_engine_cache_path=DIR"):
        providers._options(Backend(providers.TENSORRT, options={"trt_engine_cache_enable": "1"}), first, lean=False)
    assert not any("cache_path" in key for key in providers.settings(backend, first)["options"])


def test_only_integers_hang_on_the_instructions_of_the_cpu(tmp_path):
    prepared = prepared_of(graphs.convnet(tmp_path))
    cpu = Backend(providers.CPU)
    assert not prepared.integers and "instructions" not in providers.settings(cpu, prepared)
    quantised = dataclasses.replace(prepared, integers=True)
    assert providers.settings(cpu, quantised)["instructions"]
    assert "instructions" not in providers.settings(Backend(providers.CUDA), quantised)


@pytest.mark.parametrize("level", ["all", "extended", "basic", "off"])
def test_every_level_of_optimisation_gives_the_same_function(tmp_path, level):
    path, card = graphs.convnet(tmp_path)
    prepared, rows = graph.prepare(path, card=card), random_rows(3, card.size[0])
    runs = [
        session.Session(prepared, pixel_shape=card.pixel_shape, backend=Backend("cpu", 1, optimizations=one))
        for one in ("all", level)
    ]
    np.testing.assert_allclose(runs[0].run(rows)[0], runs[1].run(rows)[0], rtol=1e-4, atol=1e-5)


# --- providers from packages of their own -----------------------------------------------------------------------------


def plug_in(monkeypatch, *, names=("MyExecutionProvider",), devices=(), fails=""):
    """An `onnxruntime-ep-my` package of these providers, and the devices that the runtime lists once it is there."""
    found = SimpleNamespace(metadata={"Name": "onnxruntime-ep-my"}, version="1.0")
    module = SimpleNamespace(get_ep_names=lambda: list(names), get_library_path=lambda: "libmy.so")
    registered = []

    def register(name, path):
        if fails:
            raise RuntimeError(fails)
        registered.append((name, path))

    made = FakeRuntime()
    made.register_execution_provider_library = register
    made.get_ep_devices = lambda: [
        SimpleNamespace(ep_name=name, device=SimpleNamespace(metadata={"Description": name}, vendor=""))
        for name in devices
    ]
    monkeypatch.setattr(plugins.importlib.metadata, "distributions", lambda: [found])
    monkeypatch.setattr(plugins.importlib, "import_module", lambda name: module)
    monkeypatch.setattr(runtime, "load", lambda: made)
    plugins.installed.cache_clear()
    return made, registered


def test_a_plugin_provider_is_registered_and_used_by_its_devices(tmp_path, monkeypatch):
    made, registered = plug_in(monkeypatch, devices=["MyExecutionProvider"])
    path, card = graphs.convnet(tmp_path)
    backend = Backend("MyExecutionProvider", options={"k": "v"})
    run = session.Session(graph.prepare(path, card=card), pixel_shape=card.pixel_shape, backend=backend)
    assert registered == [("onnxruntime-ep-my", "libmy.so")]
    assert run.provider == "MyExecutionProvider" and run.device == "MyExecutionProvider (my)"
    (devices, options) = made.given[-1]
    assert [device.ep_name for device in devices] == ["MyExecutionProvider"] and options == {"k": "v"}
    assert {row["name"]: row["works"] for row in session.available()}["my"] is True


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, r"onnxruntime-ep-my 1\.0 is installed, but lists no device on this machine"),
        ({"fails": "no such symbol"}, r"onnxruntime-ep-my 1\.0 cannot be registered: no such symbol"),
    ],
)
def test_a_plugin_that_cannot_be_used_says_why(tmp_path, monkeypatch, options, says):
    plug_in(monkeypatch, **options)
    with pytest.raises(UsageError, match=f"provider 'MyExecutionProvider': {says}"):
        open_session(graphs.convnet(tmp_path), provider="MyExecutionProvider")
    rows = {row["name"]: row for row in session.available()}
    assert rows["my"]["works"] is False and re.search(says, rows["my"]["reason"])


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
