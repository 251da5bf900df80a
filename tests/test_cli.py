"""The command line: what it prints where, its exit codes, bad input in two lines without a traceback."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import graphs
import jsonschema
import pytest
import runs
from rich.console import Console
from runs import SMALL, call

from analyzer import card as cards
from analyzer.cli import terminal
from analyzer.store import checksums
from analyzer.study import Progress


@pytest.fixture
def model(tmp_path):
    path, _ = graphs.convnet(tmp_path / "model")
    runs.write_images(tmp_path / "images", 3)
    return path


@pytest.fixture
def run_arguments(model, tmp_path):
    return ["run", model, "--images", tmp_path / "images", "--out", tmp_path / "out", *SMALL]


def test_import_and_help_load_nothing_heavy():
    code = (
        "import sys, analyzer; dir(analyzer); from analyzer.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as e: assert e.code in (0, None), e.code\n"
        "names = 'onnx onnxruntime skbio scipy pandas xarray matplotlib numpy'\n"
        "heavy = set(names.split()) & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert analyzer.measures.topology.mantel and analyzer.open_run"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_run_prints_a_line_a_property_sentences_and_warnings(capsys, run_arguments, tmp_path):
    code, out, _ = call(capsys, *run_arguments)
    assert code == 0
    lines = {line[:18].strip() for line in out.splitlines()}
    assert {
        "isotropy, nat",
        "symmetry, nat",
        "Mantel r",
        "Lipschitz ratio",
        "linearity, N",
        "margin / std dev",
    } <= lines
    table = out.partition("at radius")[2].partition("•")[0].splitlines()
    assert len(table) == 7
    assert max(map(len, table)) <= 80
    assert f"`analyzer report {tmp_path / 'out'}`" in out


def test_run_prints_tables_sentences_and_warnings(capsys, run_arguments, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = call(capsys, *run_arguments, "--tables")
    assert code == 0
    for words in ("Isotropy", "Symmetry", "Topology", "Lipschitz", "median range", "Mantel r", "share below 1"):
        assert words in out
    assert out.count("•") == 7 and "• Checked on 3 images" in out
    assert "3 of 3 images read, 0 unreadable" in out
    assert "The ranges of g and h come from 3 images" in out


def test_json_is_json_only_and_the_same_from_run_and_summary(capsys, run_arguments, tmp_path):
    code, out, err = call(capsys, *run_arguments, "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    schema = json.loads((Path(__file__).parent.parent / "docs" / "summary.schema.json").read_text())
    jsonschema.validate(document, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "lipschitz_q95": {"value": 1}}, schema)
    assert document["misclassified_share@4"].keys() == {"value", "low", "high", "n"}
    assert document["isotropy_range_median@1"]["n"] == 3
    assert json.loads(call(capsys, "summary", tmp_path / "out", "--json")[1]) == document
    stored = json.loads((tmp_path / "out" / "summary.json").read_text())
    jsonschema.validate(stored, schema)
    assert checksums.opened(stored) == document


def test_summary_of_a_partial_run_says_so(capsys, run_arguments, tmp_path):
    call(capsys, *run_arguments)
    next((tmp_path / "out" / "units").glob("*.npz")).unlink()
    (tmp_path / "out" / "summary.json").unlink()
    code, out, _ = call(capsys, "summary", tmp_path / "out")
    assert code == 0
    assert out.startswith("partial: 2 of 3 images")
    assert "Partial: 2 of 3 images." in out


def test_verify_and_summary_of_damaged_results(capsys, run_arguments, tmp_path):
    call(capsys, *run_arguments)
    out = tmp_path / "out"
    document = json.loads((out / "summary.json").read_text())
    document["lipschitz_q95"]["value"] = 0.123
    (out / "summary.json").write_text(json.dumps(checksums.sealed(document)))
    code, said, _ = call(capsys, "verify", out)
    assert code == 5
    assert "not what the results give" in said
    (out / "summary.json").unlink()
    assert call(capsys, *run_arguments)[0] == 0
    (out / "results.nc").unlink()
    assert call(capsys, "verify", out)[0] == 5
    assert call(capsys, *run_arguments)[0] == 0
    next((out / "units").glob("*.npz")).unlink()
    code, said, _ = call(capsys, "summary", out)
    assert code == 0
    assert "1 unit is damaged or missing" in said


def test_verify_finds_a_flipped_bit_and_run_mends_it(capsys, run_arguments, tmp_path):
    call(capsys, *run_arguments)
    assert call(capsys, "verify", tmp_path / "out")[:2] == (0, f"{tmp_path / 'out'}: 3 of 3 images, nothing wrong\n")
    unit = next((tmp_path / "out" / "units").glob("*.npz"))
    data = bytearray(unit.read_bytes())
    data[len(data) // 2] ^= 1
    unit.write_bytes(data)
    code, out, err = call(capsys, "verify", tmp_path / "out")
    assert code == 5
    assert unit.name in out
    assert "Traceback" not in err
    assert call(capsys, *run_arguments)[0] == 0
    assert call(capsys, "verify", tmp_path / "out")[0] == 0


def test_inspect_shows_layers_and_writes_a_card_that_parses(capsys, model):
    cards.beside(model).unlink()
    code, out, _ = call(capsys, "inspect", model, "--write-card")
    assert code == 0
    assert "fc2" in out
    card = cards.read(cards.beside(model))
    assert (card.layout, card.size, card.feature_name) == ("NCHW", (16, 16), "fc2")
    code, _, err = call(capsys, "inspect", model, "--write-card")
    assert code == 2
    assert "not overwritten" in err
    code, out, _ = call(capsys, "inspect", model, "--json")
    assert json.loads(out)["inputs"] == [["x", "float32", ["N", 3, 16, 16]]]


def test_a_run_with_a_draft_card_says_so(capsys, model, run_arguments):
    cards.beside(model).unlink()
    call(capsys, "inspect", model, "--write-card")
    code, out, err = call(capsys, *run_arguments)
    assert code == 0, err
    assert "The card is still a draft" in out


def test_doctor_knows_what_works(capsys):
    code, out, _ = call(capsys, "doctor", "--json")
    report = json.loads(out)
    assert code == 0
    assert all(check["passed"] for check in report["checks"]), report["checks"]
    cpu = next(p for p in report["providers"] if p["provider"] == "CPUExecutionProvider")
    assert cpu["works"]
    assert "Mantel test against scikit-bio" in call(capsys, "doctor")[1]


def test_version(capsys):
    assert call(capsys, "--version")[:2] == (0, "analyzer 0.1.0\n")


# bad input ------------------------------------------------------------------------------------------------------------


def no_card(tmp_path, model):
    cards.beside(model).unlink()


def malformed_card(tmp_path, model):
    cards.beside(model).write_text('{"schema": 1, "input": {"layout": "NCHW"')


def unknown_key(tmp_path, model):
    document = json.loads(cards.beside(model).read_text())
    document["input"]["maen"] = [0, 0, 0]
    cards.beside(model).write_text(json.dumps(document))


def not_onnx(tmp_path, model):
    model.write_bytes(b"\x80\x04\x95 this is a pickle")


def wrong_labels(tmp_path, model):
    document = json.loads(cards.beside(model).read_text())
    document["output"]["labels"] = ["one", "two"]
    cards.beside(model).write_text(json.dumps(document))


def empty_folder(tmp_path, model):
    for image in (tmp_path / "images").iterdir():
        image.unlink()


def unreadable(tmp_path, model):
    for image in (tmp_path / "images").iterdir():
        image.write_bytes(b"nothing")


@pytest.mark.parametrize(
    ("spoil", "extra", "code", "words"),
    [
        (no_card, [], 4, "inspect"),
        (malformed_card, [], 4, "convnet.json"),
        (unknown_key, [], 4, "input.maen"),
        (not_onnx, [], 4, "convnet.onnx"),
        (wrong_labels, [], 4, "2 labels, the model 5 classes"),
        (empty_folder, [], 4, "images"),
        (unreadable, [], 4, "cannot be read"),
        (None, ["--layers", "fc3"], 4, "fc2"),
        (None, ["--min-confidence", "1"], 4, "best: image_"),
        (None, ["--labels", "missing.csv"], 4, "missing.csv"),
        (None, ["--trials", "2"], 2, "--trials 2"),
        (None, ["--radii", "1:x"], 2, "--radii"),
        (None, ["--radii", "1,5:3"], 2, "5:3"),
        (None, ["--radii", "1:1000000000000"], 2, "1:1000000000000"),
        (None, ["--trials", "200000"], 2, "--trials 200000"),
        (None, ["--batch-size", "none"], 2, "--batch-size"),
        (None, ["--threads", "0"], 2, "--threads"),
        (None, ["--threads", "99999"], 2, "--threads"),
        (None, ["--provider", "cuda"], 2, "cuda"),
        (None, ["--provider", "gpu9"], 2, "gpu9"),
        (None, ["--norm", "l7"], 2, "--norm"),
        (None, ["--trails", "5"], 2, "--trails"),
        (None, ["--out", "/proc/nothing/here"], 2, "/proc/nothing/here"),
    ],
)
def test_bad_input_gets_its_exit_code_and_two_lines(capsys, run_arguments, model, tmp_path, spoil, extra, code, words):
    if spoil is not None:
        spoil(tmp_path, model)
    found, out, err = call(capsys, *run_arguments, *extra)
    assert found == code, err
    assert words in err
    assert len(err.strip().splitlines()) <= 2, err
    assert "Traceback" not in err
    assert out == ""


def test_commands_on_what_is_no_run(capsys, tmp_path):
    for command in ("summary", "verify"):
        code, _, err = call(capsys, command, tmp_path)
        assert code == 4
        assert "no run" in err


def test_a_bug_is_one_line_without_debug_and_a_traceback_with_it(capsys, monkeypatch, run_arguments):
    def broken(*_, **__):
        raise ZeroDivisionError("by \x1b[31m design")

    monkeypatch.setattr("analyzer.study.run", broken)
    code, _, err = call(capsys, *run_arguments)
    assert code == 1
    assert err.startswith("bug: ZeroDivisionError: by \N{REPLACEMENT CHARACTER}[31m design")
    assert "Traceback" in call(capsys, *run_arguments, "--debug")[2]


def test_the_schema_takes_any_layer_name():
    schema = json.loads((Path(__file__).parent.parent / "docs" / "summary.schema.json").read_text())
    (pattern,) = schema["patternProperties"]
    assert all(re.search(pattern, f"mantel_r_mean@0.5{layer}") for layer in ("", "/fc", "/a/b", "/a\nb", "/\n"))
    assert not any(
        re.search(pattern, name) for name in ("mantel_r_mean@0.5/", "mantel_r_mean@0.5fc", "mean", "_mean", "X_mean")
    )


def test_an_error_of_the_system_that_nobody_expected_is_a_bug_too(capsys, monkeypatch, run_arguments):
    def broken(*_, **__):
        raise OSError("no number")

    monkeypatch.setattr("analyzer.study.run", broken)
    code, _, err = call(capsys, *run_arguments)
    assert code == 1
    assert err.startswith("bug: OSError: no number")


# text that reaches the screen -----------------------------------------------------------------------------------------


def test_names_cannot_command_the_terminal(capsys, tmp_path):
    model, _ = graphs.convnet(tmp_path, name="[bold red]x[-1]\x1b]0;title\x07\u202e")
    runs.write_images(tmp_path / "images", 3)
    (tmp_path / "images" / "image_000.png").rename(tmp_path / "images" / "[red]\x1b[2J.png")
    code, out, err = call(capsys, "run", model, "--images", tmp_path / "images", "--out", tmp_path / "out", *SMALL)
    assert code == 0, err
    assert "[bold red]x[-1]" in out
    assert not {"\x1b", "\x07", "\u202e"} & set(out)


def test_safe_keeps_ordinary_text():
    assert terminal.safe("Grüße, 数字 – ok\n") == "Grüße, 数字 – ok\n"
    assert terminal.safe("a\tb\x9b\udc80") == "a" + "\N{REPLACEMENT CHARACTER}" + "b" + 2 * "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("command", [["--help"], ["summary", "OUT", "--json"], ["summary", "OUT"]])
def test_a_reader_that_went_away_is_no_error(run_arguments, capsys, tmp_path, command):
    call(capsys, *run_arguments)
    command = [sys.executable, "-m", "analyzer", *(str(tmp_path / "out") if a == "OUT" else a for a in command)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (0, "")


def test_closed_and_full_stdout(run_arguments, capsys, tmp_path):
    call(capsys, *run_arguments)
    line = f"{sys.executable} -m analyzer summary {tmp_path / 'out'}"
    assert subprocess.run(["sh", "-c", f"{line} >&-"], check=False).returncode == 0
    full = subprocess.run(["sh", "-c", f"{line} > /dev/full"], check=False, capture_output=True, text=True)
    assert full.returncode == 2
    assert full.stderr.startswith("error: stdout cannot be written")


def test_settings_may_change_while_nothing_is_measured(capsys, run_arguments):
    """What the error advises has to work: no image counted, so the run holds nothing."""
    code, _, err = call(capsys, *run_arguments, "--min-confidence", "1")
    assert code == 4
    assert "Lower --min-confidence" in err
    assert call(capsys, *run_arguments)[0] == 0


def test_a_damaged_summary_is_written_anew(capsys, run_arguments, tmp_path):
    call(capsys, *run_arguments)
    good = (tmp_path / "out" / "summary.json").read_text()
    for bad in ("{}", "{", '{"schema": 99, "run": {}}'):
        (tmp_path / "out" / "summary.json").write_text(bad)
        assert call(capsys, "summary", tmp_path / "out")[0] == 5
        assert call(capsys, *run_arguments)[0] == 0
        assert (tmp_path / "out" / "summary.json").read_text() == good


def test_a_second_signal_ends_what_does_not_come_back():
    """A call into the runtime holds the interpreter's signal handler back; the second signal does not wait for it."""
    code = (
        "import signal, time\n"
        "from analyzer import cli\n"
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "cli._leave_on_second_signal()\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(1)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        process.stdout.readline()
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        process.terminate()
        assert process.wait(timeout=60) == 143


def test_closed_pipe_is_quiet(run_arguments, capsys):
    call(capsys, *run_arguments)
    command = [sys.executable, "-m", "analyzer", *map(str, run_arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        said = process.stderr.read()
        process.stderr.close()
    assert process.returncode == 0
    assert said == ""


def test_other_locale_works(run_arguments):
    command = [sys.executable, "-m", "analyzer", *map(str, run_arguments)]
    done = subprocess.run(
        command, env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"Isotropy" in done.stdout


def test_progress_off_a_terminal_is_a_line_now_and_then(capsys, monkeypatch, run_arguments):
    monkeypatch.setattr(terminal, "LINE_EVERY", 0.0)
    _, _, err = call(capsys, *run_arguments)
    assert "measuring: 3 of 3 images" in err
    assert "/s" in err
    assert "less than a minute left" in err


def test_the_bar_on_a_terminal_moves_with_the_passes(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(terminal, "console", lambda **_: Console(file=screen, force_terminal=True, width=80))
    with terminal.progress_shown() as shown:
        clock = [0.0]
        shown.bar.get_time = lambda: clock[0]
        shown(Progress("selecting", 7, 43, 16))
        assert [(t.completed, t.total) for t in shown.bar.tasks] == [(7, 43)]
        for seconds, passes in ((0.0, 100), (10.0, 200), (20.0, 300)):
            clock[0] = seconds
            shown(Progress("measuring", 0, 12, passes, 1000))
        (task,) = shown.bar.tasks
        assert (task.description, task.completed, task.total) == ("measuring", 300, 1000)
        assert task.time_remaining == 70
        shown.bar.refresh()
    assert "0 of 12 images" in screen.getvalue() and "01:10" in screen.getvalue()


def test_names_of_a_run(capsys, run_arguments, tmp_path):
    call(capsys, *run_arguments)
    code, out, _ = call(capsys, "names", tmp_path / "out")
    assert code == 0
    document = json.loads(call(capsys, "summary", tmp_path / "out", "--json")[1])
    named = {line.split()[0] for line in out.splitlines() if line.startswith("  ")}
    assert named == {name for name, entry in document.items() if isinstance(entry, dict) and "low" in entry}
    assert "isotropy_log_odds_range_median: Isotropy: range of the log-odds" in " ".join(out.split())
    listed = json.loads(call(capsys, "names", tmp_path / "out", "--json")[1])
    assert listed.keys() == named
    assert all(entry["meaning"] for entry in listed.values())


def test_a_dry_run_writes_nothing(capsys, run_arguments, tmp_path):
    code, out, err = call(capsys, *run_arguments, "--dry-run")
    assert code == 0, err
    assert "3 images found; at most 3 of those that count are measured" in " ".join(out.split())
    assert not (tmp_path / "out").exists()
    foreseen = json.loads(call(capsys, *run_arguments, "--dry-run", "--json")[1])
    call(capsys, *run_arguments)
    assert foreseen["measuring"] == json.loads((tmp_path / "out/pace.json").read_text())["passes"]
    assert foreseen["seconds"] > foreseen["opening"] > 0
    assert call(capsys, *run_arguments, "--dry-run", "--cluster", "local:2")[0] == 2


def test_doctor_names_the_runtime(capsys):
    report = json.loads(call(capsys, "doctor", "--json")[1])
    assert [wheel["note"] for wheel in report["runtimes"]] == [""]
    assert f"{report['runtimes'][0]['package']} {report['runtimes'][0]['version']}" in call(capsys, "doctor")[1]


def test_runtimes_that_overwrite_each_other_are_told(capsys, monkeypatch):
    from analyzer.session import runtime

    both = {"onnxruntime": "1.0", "onnxruntime-gpu": "1.0.1"}
    monkeypatch.setattr(runtime, "_is_installed", lambda name: name in both)
    monkeypatch.setattr(runtime.importlib.metadata, "version", both.__getitem__)
    built = {"package_name": "onnxruntime-gpu", "cuda_version": "13.0"}
    monkeypatch.setattr(runtime.runpy, "run_path", lambda path: built)
    cpu, gpu = runtime.wheels()
    assert (cpu["package"], cpu["note"], cpu["cuda"]) == ("onnxruntime", "overwritten", "")
    assert (gpu["version"], gpu["cuda"]) == ("1.0.1", "13.0")
    assert gpu["note"] == "its files are there, over those of onnxruntime"
