"""THE onnxruntime place: choosing and proving a provider, batch sizes, running prepared graphs."""

from analyzer.session.core import Session
from analyzer.session.providers import available, device_of

__all__ = ["Session", "available", "device_of"]
