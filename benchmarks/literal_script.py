"""What a researcher would write: the paper's four measurements, one after the other, each with passes of its own.

`numpy.random.Generator` for noise and `permutation` for reordering, scipy's pdist, scikit-bio's Mantel; one
perturbation at a time, as the equations are written, or in batches.
"""

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from scipy.spatial.distance import pdist, squareform
from scipy.special import softmax
from skbio.stats.distance import mantel

from analyzer import card as cards
from analyzer import images

TRIALS = 100
Forward = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def four_measurements(forward: tuple[Forward, cards.Card], picture: images.Pixels, batch_size: int) -> float:
    """Seconds for isotropy, symmetry, topology and Lipschitz of one image at one radius, passes not shared."""
    network, card = forward
    rng, radius = np.random.default_rng(1), 5.0
    mean, std = (np.array(v, dtype=np.float32)[:, None, None] for v in (card.mean, card.std))
    x = picture.values
    start = time.perf_counter()

    def noise() -> np.ndarray:
        nu = rng.uniform(-1, 1, x.shape).astype(np.float32)
        return radius * nu / np.abs(nu).max()

    def answers(deltas: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        parts = []
        for k in range(0, TRIALS, batch_size):
            batch = np.stack([(x + d - mean) / std for d in deltas[k : k + batch_size]])
            parts.append(network(batch.astype(np.float32)))
        return tuple(np.concatenate(p) for p in zip(*parts, strict=True))  # type: ignore[return-value]

    clean = network(((x - mean) / std)[None].astype(np.float32))[1][0]
    # isotropy
    scores = softmax(answers([noise() for _ in range(TRIALS)])[0].astype(float), axis=1)[:, 0]
    result: list[Any] = [scores.max() - scores.min()]
    # symmetry
    one = noise().ravel()
    reordered = [rng.permutation(one).reshape(x.shape) for _ in range(TRIALS)]
    scores = softmax(answers(reordered)[0].astype(float), axis=1)[:, 0]
    result.append(scores.max() - scores.min())
    # topology
    deltas = [noise() for _ in range(TRIALS)]
    features = answers(deltas)[1]
    d_in, d_out = squareform(pdist([d.ravel() for d in deltas])), squareform(pdist(features))
    result += [mantel(d_in, d_out, permutations=999, seed=0)[:2], np.linalg.inv(d_in) @ d_out]
    # Lipschitz
    deltas = [noise() for _ in range(TRIALS)]
    features = answers(deltas)[1]
    result.append(np.linalg.norm(features - clean, axis=1) / [np.linalg.norm(d) for d in deltas])
    return time.perf_counter() - start


def onnx_network(path: Path, card: cards.Card) -> tuple[Forward, cards.Card]:
    """The model as it is, with its feature layer as a second output."""
    model = onnx.load(path)
    names = [model.graph.output[0].name, card.feature_name]
    if names[1] not in [o.name for o in model.graph.output]:
        known = {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
        model.graph.output.append(known[names[1]])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name

    def forward(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, feature = session.run(names, {entry: batch})
        return logits, feature.reshape(len(batch), -1)

    return forward, card


def torch_network(name: str) -> tuple[Forward, cards.Card] | None:
    """The network's own PyTorch module with random weights; None without torch, or for a network not known here."""
    try:
        import torch
    except ImportError:
        return None
    if name == "gtsrb_ciresan2012":
        module, last = importlib.import_module("gtsrb").ciresan2012(), -1
    elif name.startswith("torchvision_"):
        tv = importlib.import_module("_torch").torchvision()
        module, last = tv.models.get_model(name.removeprefix("torchvision_"), weights=None), None
    else:
        return None
    module.eval()
    layer = module[last] if last is not None else getattr(module, "fc", None) or module.classifier[-1]
    entered: list[Any] = []
    layer.register_forward_pre_hook(lambda _, given: entered.append(given[0]))
    size = (48, 48) if name.startswith("gtsrb") else (224, 224)
    card = cards.Card("NCHW", size, "RGB", cards.Resize("none"), (0.0,) * 3, (255.0,) * 3, "logits")

    def forward(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            logits = module(torch.from_numpy(batch))
        return logits.numpy(), entered.pop().flatten(1).numpy()

    return forward, card
