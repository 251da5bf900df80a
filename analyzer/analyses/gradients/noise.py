"""What a run's random noise found around an image, and how far it falls short of what gradients find."""

from typing import Any

import numpy as np

from analyzer.analyses.gradients.isotropy import linear_range


def noise_around(dataset: Any, image: str, label: int, layer: str) -> dict[str, float | bool]:
    """Of one image of an `analyzer.open_run` dataset; what its measures did not store is left out.

    range_measured: range of the log-odds at the smallest radius, nat. ratio_sampled: the largest ||change of layer|| /
    ||change of pixels|| there, raw. noise_found: whether a trial was misclassified; noise_radius, noise_linf, noise_l2:
    the first radius where one was, else the largest one tried, and what was really added there (mean over the trials).
    """
    there = dataset.sel(image=image)
    found: dict[str, float | bool] = {}
    if "isotropy_log_odds" in there:
        first = there["isotropy_log_odds"].values[0]
        found["range_measured"] = float(first.max() - first.min())
    if "feature_distance" in there:
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = there["feature_distance"].sel(layer=layer).values[0] / there["input_distance_l2"].values[0]
        found["ratio_sampled"] = float(ratios.max())
    if "isotropy_predicted" in there:
        predicted = there["isotropy_predicted"].values
        wrong = ((predicted != label) & (predicted >= 0)).any(axis=1)
        at = int(wrong.argmax()) if wrong.any() else len(wrong) - 1
        found |= {"noise_found": bool(wrong.any()), "noise_radius": float(there["radius"].values[at])}
        for norm in ("linf", "l2"):
            found[f"noise_{norm}"] = float(there[f"input_distance_{norm}"].values[at].mean())
    return found


def beside_noise(
    row: dict[str, Any], noise: dict[str, float | bool], manifest: dict[str, Any], dimension: int
) -> dict[str, float | bool]:
    """`noise`, with the range that the gradient predicts and the ratios of an image's other figures to it.

    understated_*: noise that first misclassifies over the smallest perturbation found that does, in one norm; where
    noise_found is false, a lower bound of that.
    """
    identity = manifest["identity"]
    found = dict(noise)
    if "gradient_l2" in row:
        found["range_linear"] = linear_range(
            row["gradient_l2"],
            radius=identity["radii"][0],
            norm=identity["norm"],
            dimension=dimension,
            trials=identity["trials"],
        )
    both = row | found
    for name, above, below in (
        ("range_linear_over_measured", "range_linear", "range_measured"),
        ("sigma_over_rms", "sigma_max", "jacobian_rms"),
        ("sigma_over_sampled", "sigma_max", "ratio_sampled"),
        ("understated_linf", "noise_linf", "fgsm_eps"),
        ("understated_l2", "noise_l2", "l2_distance"),
    ):
        if above in both and below in both and both[below] > 0 and np.isfinite(both[below]):
            found[name] = float(both[above] / both[below])
    return found
