"""The keys of RUN/sensitivity.json.

While the document is made, a figure that is undefined is NaN, and a distance where no boundary was found infinite. In
the file and in what `sensitivity` returns, both are None.
"""

from typing import NotRequired, TypedDict


class Figures(TypedDict, total=False):
    """What is measured around one image; what was not measured, or was not to be had, is absent.

    Gradient and Hessian are those of the log-odds, in nat per grey level and its square. sigma_max and jacobian_rms are
    in feature units per grey level, distances and radii in grey levels.
    """

    gradient_l2: float | None
    gradient_l1: float | None
    gradient_mean: float | None
    gradient_std: float | None
    gradient_pairwise_difference: float | None
    gradient_equal_share: float | None
    hessian_frobenius: float | None
    hessian_trace: float | None
    hessian_equal_diagonal: float | None
    hessian_unequal_diagonal: float | None
    hessian_off_diagonal: float | None
    hessian_off_frobenius: float | None
    sigma_max: float | None
    sigma_iterations: int
    sigma_converged: bool
    sigma_residual: float | None
    jacobian_rms: float | None
    fgsm_eps: float | None
    l2_distance: float | None
    l2_linf: float | None
    l2_reached: int
    range_measured: float | None
    range_linear: float | None
    range_linear_over_measured: float | None
    ratio_sampled: float | None
    sigma_over_rms: float | None
    sigma_over_sampled: float | None
    noise_found: bool
    noise_radius: float | None
    noise_linf: float | None
    noise_l2: float | None
    understated_linf: float | None
    understated_l2: float | None


class ImageRow(Figures):
    """The figures of one image."""

    id: str
    label: int


class Median(TypedDict):
    """Median over n images with its 95 % interval. lower_bound: of the noise radius, whether it may be larger."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    lower_bound: NotRequired[bool]


class Medians(TypedDict, total=False):
    """Of every figure that is no whole number and no yes or no."""

    gradient_l2_median: Median
    gradient_l1_median: Median
    gradient_mean_median: Median
    gradient_std_median: Median
    gradient_pairwise_difference_median: Median
    gradient_equal_share_median: Median
    hessian_frobenius_median: Median
    hessian_trace_median: Median
    hessian_equal_diagonal_median: Median
    hessian_unequal_diagonal_median: Median
    hessian_off_diagonal_median: Median
    hessian_off_frobenius_median: Median
    sigma_max_median: Median
    sigma_residual_median: Median
    jacobian_rms_median: Median
    fgsm_eps_median: Median
    l2_distance_median: Median
    l2_linf_median: Median
    range_measured_median: Median
    range_linear_median: Median
    range_linear_over_measured_median: Median
    ratio_sampled_median: Median
    sigma_over_rms_median: Median
    sigma_over_sampled_median: Median
    noise_radius_median: Median
    noise_linf_median: Median
    noise_l2_median: Median
    understated_linf_median: Median
    understated_l2_median: Median


class SelfCheck(TypedDict):
    """Relative errors of the derivative graphs."""

    jacobian: float
    gradient: float
    adjoint: float


class Method(TypedDict):
    """How the derivatives were had. gradients, hessian: None without derivative graphs, and `unavailable` says why.

    step: of the differences, grey levels. input_step: that in which the network quantises its input, if it does.
    """

    gradients: str | None
    hessian: str | None
    sigma: str
    step: float
    input_step: NotRequired[float]
    self_check: NotRequired[SelfCheck]
    hessian_graph_error: NotRequired[float | None]
    hessian_graph_unavailable: NotRequired[str]
    unavailable: NotRequired[str]


class RunRow(TypedDict):
    """The run that was looked at. images: how many of its images."""

    model: str
    layer: str
    images: int
    norm: str
    radii: list[float]
    trials: int
    clip: bool
    device: str


class SensitivityDocument(Medians):
    """All of it, with the medians at its top level."""

    schema: int
    run: RunRow
    method: Method
    sentences: list[str]
    warnings: list[str]
    images: list[ImageRow]
