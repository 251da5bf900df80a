"""THE onnxruntime place: choosing and proving a provider, batch sizes, running prepared graphs."""

from analyzer.session.backend import Backend, parse_options
from analyzer.session.core import Session
from analyzer.session.feeding import Feed, Words
from analyzer.session.interface import Runner
from analyzer.session.proving import ProviderStatus, available, device_of
from analyzer.session.split import Split

__all__ = [
    "Backend",
    "Feed",
    "ProviderStatus",
    "Runner",
    "Session",
    "Split",
    "Words",
    "available",
    "device_of",
    "parse_options",
]
