"""What once ended as a bug or in bad advice: damaged models and tables, a system that refuses, formulas in cells."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import disks
import graphs
import onnx
import pytest
import runs

from analyzer import card as cards
from analyzer import document, export, graph, system
from analyzer.errors import IncompleteError, InputError, UsageError
from analyzer.images import labels
from analyzer.session import Backend, Session, runtime


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax", "Reshape", "Flatten", "Identity"])
def test_an_operator_without_an_input_is_a_damaged_model(tmp_path, operator):
    path, _ = graphs.convnet(tmp_path)
    model = onnx.load(path)
    last = model.graph.node[-1]
    last.op_type = operator
    del last.input[:]
    del last.attribute[:]
    onnx.save(model, path)
    for use in (
        graph.describe,
        lambda model: graph.prepare(model, card=cards.read(path.with_suffix(".json")), layers=[]),
    ):
        try:
            description = use(path)
        except InputError as e:
            notes = [str(e)]
        else:
            notes = description.notes
        assert any(f"its {operator} before " in note and "has no input" in note for note in notes)


@pytest.mark.parametrize("space", ["", " ", "\t"])
def test_spaces_around_a_number_of_a_table_are_dropped(tmp_path, space):
    table = tmp_path / "GT-x.csv"
    table.write_text(f"Filename;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\na.png;0;0;5;{space}5;2{space}\n")
    _, card = graphs.convnet(tmp_path)
    assert labels.from_gtsrb([("", table)], {"a.png"}, card=card) == {"a.png": (2, (0, 0, 5, 5))}


@pytest.mark.parametrize("cell", ["5\x1f1", "\x1c51", "51\x1f"])
def test_a_control_character_in_a_number_of_a_table_is_named(tmp_path, cell):
    table = tmp_path / "GT-x.csv"
    table.write_text(f"Filename;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\na.png;0;0;5;{cell};2\n")
    _, card = graphs.convnet(tmp_path)
    with pytest.raises(InputError, match=r"line 2: Roi\.Y2 must be an integer"):
        labels.from_gtsrb([("", table)], {"a.png"}, card=card)


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE])
def test_a_child_process_that_cannot_be_started_is_said(monkeypatch, code):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(subprocess, "run", refuse)
    with pytest.raises(UsageError, match=r"x\.onnx: checking no child process could be started: ") as refused:
        graph.check(Path("x.onnx"))
    assert os.strerror(code) in str(refused.value)
    assert system.physical_memory() > 0


@pytest.mark.parametrize(
    "text",
    [" =1+1", "\u00a0=1", "\u3000@x", "＝1+1", " ＋1", "－1", "＠x", "﹦1", "\n=1", "\x1f=1", "=1", "+1", "-1", "@x"],
)
def test_a_cell_that_some_spreadsheet_takes_for_a_formula_is_quoted(text):
    assert export.cell(text).startswith("'")


@pytest.mark.parametrize("text", ["a=1", " a", "1", "", "é", "\u200b=1"])
def test_other_cells_stay_as_they_are(text):
    assert not export.cell(text).startswith("'")


def test_out_of_memory_on_the_cpu_does_not_advise_the_cpu(tmp_path, monkeypatch):
    error = RuntimeError("Failed to allocate memory for requested buffer")
    assert "`provider`" not in str(runtime.load_error(error, "x.onnx", on_cpu=True))
    assert "`provider` cpu" in str(runtime.load_error(error, "x.onnx", on_cpu=False))

    path, card = graphs.convnet(tmp_path)
    prepared = graph.prepare(path, card=card, layers=[])
    session = Session(prepared, pixel_shape=card.pixel_shape, backend=Backend("cpu"), batch_size=1)

    def exhausted(*_):
        raise MemoryError("bad allocation")

    monkeypatch.setattr(Session, "forward", exhausted)
    with pytest.raises(UsageError, match=r"too little memory on .*free some$"):
        session.run(session._random_rows(1))


# a card that is drafted -----------------------------------------------------------------------------------------------


def test_a_drafted_card_is_whole_or_absent(tmp_path, monkeypatch):
    target = tmp_path / "net.json"

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(IncompleteError, match=r"net\.json: cannot be written: No space left on device; free some"):
        document.write_new(target, {"schema": 1})
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    document.write_new(target, {"schema": 1})
    with pytest.raises(UsageError, match="exists already"):
        document.write_new(target, {"schema": 2})
    assert (target.read_text(), list(tmp_path.iterdir())) == ('{\n "schema": 1\n}\n', [target])


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_drafted_card_needs_no_links(tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    document.write_new(tmp_path / "net.json", {"schema": 1})
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.json"]


def test_a_card_that_appears_meanwhile_is_not_overwritten(tmp_path, monkeypatch):
    target = tmp_path / "net.json"
    monkeypatch.setattr(os, "fsync", lambda _: target.write_text("mine"))
    with pytest.raises(UsageError, match="exists already"):
        document.write_new(target, {"schema": 1})
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["mine"]


def test_write_card_on_a_full_disk_leaves_nothing(tmp_path):
    path, _ = graphs.convnet(tmp_path / "model")
    with disks.mounted(tmp_path / "small", "size=64k") as small:
        model = small / "net.onnx"
        model.write_bytes(path.read_bytes())
        disks.fill(small)
        before = sorted(small.iterdir())
        command = [sys.executable, "-m", "analyzer", "inspect", str(model), "--write-card"]
        process = subprocess.run(command, check=False, capture_output=True, text=True)
        assert process.returncode == 5, process.stderr
        assert "No space left on device" in process.stderr
        assert sorted(small.iterdir()) == before


@pytest.mark.parametrize("operator", ["DequantizeLinear", "QuantizeLinear", "Relu", "Tile", "CumSum"])
def test_any_operator_that_is_followed_back_without_an_input_is_a_damaged_model(tmp_path, operator):
    model, card = graphs.pixel_mean(tmp_path)

    def change(proto):
        proto.graph.node[-1].output[0] = "scores"
        proto.graph.node.add(op_type=operator, output=["logits"])

    graphs.edit(model, change)
    with pytest.raises(InputError, match=rf"its {operator} before 'logits' has no input"):
        graph.prepare(model, card=card)


def test_scores_that_are_a_constant_are_read_without_a_fault(tmp_path):
    model, card = graphs.pixel_mean(tmp_path)

    def change(proto):
        proto.graph.node[-1].output[0] = "scores"
        proto.graph.node.append(graphs.node("Constant", "", "logits", value=graphs.tensor("c", [[1.0, 2.0]])))

    graphs.edit(model, change)
    prepared = graph.prepare(model, card=card)
    assert len(prepared.outputs) == 1 + len(prepared.layers) and prepared.final == ""


def test_names_that_are_too_long_are_refused_in_two_lines(tmp_path, capsys):
    runs.write_images(tmp_path / "i", 1)
    long = "9" * 400
    for words in (["inspect", long], ["run", long, "--images", tmp_path / "i", "--out", tmp_path / "o"]):
        code, _, err = runs.call(capsys, *words)
        assert code in (2, 4) and len(err.strip().splitlines()) <= 2, err
    code, _, err = runs.call(capsys, "compare", "a\nb\nc")
    assert code == 2 and len(err.strip().splitlines()) <= 2, err
