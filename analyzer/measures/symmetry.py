"""Local symmetry (section 2.2, Eq. 5 and 6; Fig. 3): equal scores for every reordering of one perturbation.

The quantity is the range of isotropy, on the permutation family. A network that is isotropic is symmetric too.
Permuted i.i.d. noise is almost fresh noise when the image is large, so that a range equal to that of isotropy is
expected and no independent evidence: `excess` says by how much they differ.
"""

import numpy as np
from numpy.typing import NDArray

from analyzer.measures.isotropy import score_range


def excess(permuted: NDArray[np.float64], fresh: NDArray[np.float64]) -> NDArray[np.float64]:
    """Range under permutation minus range under fresh noise of the same image: (..., trial) twice -> (...).

    Paired by image; zero on average where permuting adds nothing to what isotropy has shown. Same unit as the input.
    """
    return np.asarray(score_range(permuted) - score_range(fresh))
