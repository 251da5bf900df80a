"""Exporter scripts: one a framework, each run by itself, `python exporters/NAME.py` or `python -m exporters.NAME`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # where the scripts find what they share
