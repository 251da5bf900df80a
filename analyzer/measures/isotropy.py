"""Local isotropy (section 2.1, Eq. 2 and 4; Fig. 1): equal scores at equal distance, in every direction.

An isotropic network has range 0. The range grows with the number of trials: compare it at equal T only.
"""

import numpy as np
from numpy.typing import NDArray


def score_range(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """range(r) = max_i s_i - min_i s_i over the last axis (trial): shape (..., trial) -> (...).

    Probabilities or log-odds in, the same unit out. NaN where any trial is NaN: a range over the rest would be
    smaller than the true one.
    """
    return np.asarray(np.max(scores, axis=-1) - np.min(scores, axis=-1))


def mean_score(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis (trial): shape (..., trial) -> (...). NaN where any trial is NaN."""
    return np.asarray(np.mean(scores, axis=-1, dtype=np.float64))


def misclassified(predicted: NDArray[np.integer], label: NDArray[np.integer]) -> NDArray[np.float64]:
    """Share of trials whose predicted class is not the label: (..., trial) and (...) or scalar -> (...).

    NaN where any prediction is undefined (-1). The paper's square marker is "share above 0".
    """
    wrong = np.mean(predicted != np.asarray(label)[..., None], axis=-1)
    return np.where((predicted == -1).any(axis=-1), np.nan, wrong)
