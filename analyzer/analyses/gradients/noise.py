"""What a run's random noise found around an image, and how far it falls short of what gradients find."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from analyzer.analyses.gradients.documents import Figures, ImageRow
from analyzer.analyses.gradients.isotropy import linear_range
from analyzer.measures import isotropy, lipschitz
from analyzer.store.documents import Identity


def noise_around(dataset: Any, image: str, label: int, layer: str) -> Figures:
    """What noise did around one image of an `analyzer.open_run` dataset, as far as the run's measures stored it.

    range_measured: range of the log-odds at the smallest radius, nat. ratio_sampled: the largest ||change of layer|| /
    ||change of pixels|| there, raw. noise_found: whether a trial was misclassified; noise_radius, noise_linf, noise_l2:
    the first radius where one was, else the largest one tried, and the size of the noise there, mean over the trials.
    """
    there = dataset.sel(image=image)
    figures: Figures = {}
    scores = isotropy.SCORES
    if scores.log_odds in there:
        first = there[scores.log_odds].values[0]
        figures["range_measured"] = float(first.max() - first.min())
    if lipschitz.RAW.measured_in(there):
        moved, added = (there[name] for name in lipschitz.RAW.reads)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = moved.sel(layer=layer).values[0] / added.values[0]
        figures["ratio_sampled"] = float(ratios.max())
    if scores.predicted in there:
        predicted = there[scores.predicted].values
        wrong = ((predicted != label) & (predicted >= 0)).any(axis=1)
        at = int(wrong.argmax()) if wrong.any() else len(wrong) - 1
        figures["noise_found"] = bool(wrong.any())
        figures["noise_radius"] = float(there["radius"].values[at])
        figures["noise_linf"] = float(there["input_distance_linf"].values[at].mean())
        figures["noise_l2"] = float(there["input_distance_l2"].values[at].mean())
    return figures


def beside_noise(row: ImageRow, noise: Figures, identity: Identity, dimension: int) -> Figures:
    """`noise`, the range that the gradient predicts, and ratios of the figures in `row` to those of noise.

    understated_*: size of the noise that first misclassifies, over that of the smallest perturbation that an attack
    found, in one norm. A lower bound where noise_found is false.
    """
    measured: Mapping[str, Any] = row
    added: dict[str, Any] = dict(noise)
    if "gradient_l2" in measured:
        added["range_linear"] = linear_range(
            measured["gradient_l2"],
            radius=identity["radii"][0],
            norm=identity["norm"],
            dimension=dimension,
            trials=identity["trials"],
        )
    both = {**measured, **added}
    for name, above, below in (
        ("range_linear_over_measured", "range_linear", "range_measured"),
        ("sigma_over_rms", "sigma_max", "jacobian_rms"),
        ("sigma_over_sampled", "sigma_max", "ratio_sampled"),
        ("understated_linf", "noise_linf", "fgsm_eps"),
        ("understated_l2", "noise_l2", "l2_distance"),
    ):
        if above in both and below in both and both[below] > 0 and np.isfinite(both[below]):
            added[name] = float(both[above] / both[below])
    return cast(Figures, added)
