"""The networks and images that come with the package: in the wheel beside the code, in a checkout in models/."""

from pathlib import Path

from analyzer.errors import UsageError

NETWORKS = ("gtsrb_ciresan2012", "gtsrb_aghdam2015")


def folder() -> Path:
    """The folder with the bundled ``.onnx`` files, their cards and ``demo/``. Raises UsageError when it is missing."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "models", package.parent / "models"):
        if (candidate / f"{NETWORKS[0]}.onnx").is_file():
            return candidate
    raise UsageError("the bundled networks are missing from this installation; install convnet-analyzer again")
