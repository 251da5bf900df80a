"""The paper's equations written out: one image, one perturbation, one forward pass at a time; numpy, scipy, scikit-bio.

Slow on purpose, and sharing nothing with the analyzer but the perturbations (`analyzer.perturbations.deltas`). Four
separate passes, as the paper describes them.
"""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from PIL import Image
from scipy.spatial.distance import pdist, squareform
from skbio.stats.distance import mantel

from analyzer import perturbations


class Network:
    """One model with logits and feature as outputs; canonical pixels in, one row a call."""

    def __init__(self, path: Path, card, feature: str, logits: str = "logits") -> None:
        model = onnx.shape_inference.infer_shapes(onnx.load(path))
        known = {v.name: v for v in model.graph.value_info}
        have = {o.name for o in model.graph.output}
        model.graph.output.extend(known[name] for name in (logits, feature) if name not in have)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.card, self.names = card, [logits, feature]

    def __call__(self, pixels):
        x = pixels.astype(np.float64)
        if self.card.channels == "BGR":
            x = x[::-1]
        x = np.stack([(plane - m) / s for plane, m, s in zip(x, self.card.mean, self.card.std, strict=True)])
        if self.card.layout == "NHWC":
            x = x.transpose(1, 2, 0)
        logits, feature = self.session.run(self.names, {self.session.get_inputs()[0].name: x[None].astype(np.float32)})
        return logits[0].astype(np.float64), feature[0].ravel().astype(np.float64)


def pixels_of(path: Path):
    """An image that already has the model's size."""
    return np.asarray(Image.open(path).convert("RGB"), dtype=np.float32).transpose(2, 0, 1)


def perturbed(path, pixels, *, family, radius, trials, norm, seed, clip=False, whole=False):
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    deltas = perturbations.deltas(
        seed=seed, sha256=sha, shape=pixels.shape, family=family, radius=radius, trials=trials, norm=norm
    )
    for delta in deltas:
        x = pixels + delta
        if clip:
            x = np.clip(x, 0, 255)
        if whole:
            x = np.rint(x)
        yield x


def score(logits, label):
    """Softmax probability, and log-odds, of one class."""
    e = np.exp(logits - logits.max())
    others = np.delete(logits, label)
    return e[label] / e.sum(), logits[label] - (np.log(np.exp(others - others.max()).sum()) + others.max())


def isotropy(network, path, label, radii, trials, *, family="noise", **how):
    """Eq. 4 (and Eq. 6 with the permutation family): scores (radius, trial), log-odds, predictions."""
    pixels = pixels_of(path)
    s, odds, predicted = (np.empty((len(radii), trials)) for _ in range(3))
    for k, radius in enumerate(radii):
        for i, x in enumerate(perturbed(path, pixels, family=family, radius=radius, trials=trials, **how)):
            logits, _ = network(x)
            s[k, i], odds[k, i] = score(logits, label)
            predicted[k, i] = np.argmax(logits)
    return s, odds, predicted


def topology(network, path, radii, trials, **how):
    """Eq. 7 and Mantel's r at each radius: r, alpha's departure, participation ratio."""
    pixels = pixels_of(path)
    r, departure, participation = (np.empty(len(radii)) for _ in range(3))
    for k, radius in enumerate(radii):
        inputs, outputs = [], []
        for x in perturbed(path, pixels, family="noise", radius=radius, trials=trials, **how):
            inputs.append((x.astype(np.float64) - pixels).ravel())
            outputs.append(network(x)[1])
        d_in, d_out = squareform(pdist(inputs)), squareform(pdist(outputs))
        r[k] = mantel(d_in, d_out, permutations=0)[0]
        alpha = np.linalg.inv(d_in) @ d_out
        c = np.trace(alpha) / trials
        departure[k] = np.linalg.norm(alpha - c * np.eye(trials)) / np.linalg.norm(alpha)
        f = np.array(outputs) - np.mean(outputs, axis=0)
        g = f @ f.T
        m = np.mean(np.diag(g))
        off = np.mean([g[i, j] ** 2 for i in range(trials) for j in range(trials) if i != j])
        participation[k] = m**2 / (off - (m / (trials - 1)) ** 2)
    return r, departure, participation


def lipschitz(network, path, radii, trials, calibration, **how):
    """Eq. 9: ratio (radius, trial), the raw distances, and norm_F(J) / sqrt(D) at each radius."""
    every_pixel = np.concatenate([pixels_of(p).ravel() for p in calibration])
    every_feature = np.concatenate([network(pixels_of(p))[1] for p in calibration])

    def h(v):
        return (v - every_pixel.min()) / (every_pixel.max() - every_pixel.min())

    def g(v):
        return (v - every_feature.min()) / (every_feature.max() - every_feature.min())

    pixels = pixels_of(path)
    clean = network(pixels)[1]
    ratio, moved, added = (np.empty((len(radii), trials)) for _ in range(3))
    rms = np.empty(len(radii))
    for k, radius in enumerate(radii):
        features, deltas = [], []
        for i, x in enumerate(perturbed(path, pixels, family="noise", radius=radius, trials=trials, **how)):
            feature = network(x)[1]
            features.append(feature)
            ratio[k, i] = np.linalg.norm(g(feature) - g(clean)) / np.linalg.norm(
                (h(x.astype(np.float64)) - h(pixels.astype(np.float64))).ravel()
            )
            moved[k, i] = np.linalg.norm(feature - clean)
            deltas.append((x.astype(np.float64) - pixels).ravel())
            added[k, i] = np.linalg.norm((x.astype(np.float64) - pixels).ravel())
        spread = np.mean(np.sum((np.array(features) - np.mean(features, axis=0)) ** 2, axis=1))
        rms[k] = np.sqrt(spread / np.mean(np.sum((np.array(deltas) - np.mean(deltas, axis=0)) ** 2, axis=1)))
    return ratio, moved, added, rms
