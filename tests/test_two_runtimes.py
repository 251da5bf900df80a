"""One network on two runtimes of different make and version: OpenVINO in an environment of its own, the CPU here.

ANALYZER_OPENVINO names the Python of an environment with convnet-analyzer and onnxruntime-openvino.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from analyzer import bundled, open_run
from analyzer.verdicts.drift import drift

PYTHON = os.environ.get("ANALYZER_OPENVINO", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="ANALYZER_OPENVINO names no Python with onnxruntime-openvino")
OPTIONS = ["--radii", "0.5,5,20", "--trials", "20", "--limit", "12", "--min-confidence", "0", "--permutations", "0"]


def measure(python, model, out, provider):
    folder = bundled.folder()
    command = [python, "-m", "analyzer", "run", folder / f"{model}.onnx", "--images", folder / "demo"]
    command += ["--labels", folder / "demo" / "labels.csv", "--out", out, "--provider", provider, *OPTIONS]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((out / "manifest.json").read_text())["context"]


@pytest.mark.parametrize("model", bundled.NETWORKS)
def test_openvino_answers_as_the_cpu_does(tmp_path, model):
    here = measure(sys.executable, model, tmp_path / "cpu", "cpu")
    there = measure(PYTHON, model, tmp_path / "openvino", "openvino")
    assert (here["provider"], there["provider"]) == ("CPUExecutionProvider", "OpenVINOExecutionProvider")
    assert "onnxruntime" in here["versions"] and "onnxruntime-openvino" in there["versions"]
    assert there["checks"]["batches"]["faults"] == 0 and not there["checks"]["fidelity"]["differs"]
    with open_run(tmp_path / "cpu") as one, open_run(tmp_path / "openvino") as other:
        # Not one perturbation differs, to the bit.
        np.testing.assert_array_equal(one["input_distance_l2"].values, other["input_distance_l2"].values)
        apart = np.abs(one["isotropy_log_odds"].values - other["isotropy_log_odds"].values)
    (found,) = drift(tmp_path / "cpu", [tmp_path / "openvino"])["candidates"]
    assert found["drift_log_odds_largest"]["value"] >= apart.max() > 0  # another runtime, not the same one twice
    assert found["drift_log_odds_largest"]["value"] < 1e-2
    for name in ("drift_clean_flip_share", "drift_flip_share@0.5", "drift_flip_share@20"):
        assert found[name]["value"] == 0
    assert found["drift_clean_feature_relative_median"]["value"] < 1e-4
