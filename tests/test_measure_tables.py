"""Every measure of the registry: its table is consistent, and its answer right where that is known in closed form."""

import numpy as np
import pytest
from scipy.special import ndtri

from analyzer import store
from analyzer.measures import NUMBERS, REGISTRY, TABLES, Observation, geometry
from analyzer.measures.quantities import HIGHER, LOWER
from analyzer.measures.scores import TrueClass
from analyzer.statistics import QUANTILES
from analyzer.summary import radius_labels

RADII, TRIALS, DIMENSION = (1.0, 2.0), 12, 30
# Around an orthogonal linear map whose log-odds are the trial's number times the radius; at the halves it is half off.
KNOWN = {
    "isotropy": {"isotropy_log_odds": lambda values: np.ptp(values, axis=-1), "expected": [11.0, 22.0]},
    "symmetry": {"symmetry_log_odds": lambda values: np.ptp(values, axis=-1), "expected": [11.0, 22.0]},
    "topology": {"mantel_r": lambda values: values[:, 0], "expected": [1.0, 1.0]},
    "lipschitz": {"jacobian_rms": lambda values: values[:, 0], "expected": [1.0, 1.0]},
    "linearity": {"linearity": lambda values: values[:, 0], "expected": [0.5, 0.5]},
    # One trial selects, eleven answer alike: probability above 0.001^(1/11), 0.085 deviations.
    "certified": {"certified_radius": lambda values: values, "expected": ndtri(0.001 ** (1 / 11)) * np.array(RADII)},
}
"""Measure -> a variable, what of it is known, and its value at each radius."""


@pytest.fixture
def around(rng):
    noise = rng.uniform(-1, 1, (len(RADII), TRIALS, DIMENSION)) * np.array(RADII)[:, None, None]
    features = noise @ np.linalg.qr(rng.standard_normal((DIMENSION, DIMENSION)))[0]
    log_odds = np.arange(TRIALS) * np.array(RADII)[:, None]
    scores = TrueClass(1 / (1 + np.exp(-log_odds)), log_odds, np.zeros(log_odds.shape, np.int32), log_odds)
    halves = TrueClass(*(values[:, :5] for values in scores))
    return Observation(
        scores={"noise": scores, "permutation": scores, "gaussian": scores},
        input_gram=np.stack([rows @ rows.T for rows in noise]),
        feature_gram=np.stack([geometry.centred_gram(rows) for rows in features])[:, None],
        feature_distance=np.linalg.norm(features, axis=-1)[..., None],
        feature_floor=np.zeros(1),
        clean_log_odds=0.0,
        log_odds_floor=0.0,
        half=halves,
        half_defect=0.5 * np.linalg.norm(features, axis=-1)[:, :5, None],
        half_resolution=0.0,
        dimension=DIMENSION,
        radii=RADII,
        norm="linf",
        permutations=19,
        key=1,
    )


def test_every_measure_has_a_row():
    assert KNOWN.keys() == REGISTRY.keys()


@pytest.mark.parametrize("name", REGISTRY)
def test_the_closed_form(name, around):
    arrays = REGISTRY[name].observe(around)
    stored = [variable for variable in REGISTRY[name].variables if variable.derived is None]
    assert arrays.keys() == {variable.name for variable in stored}
    length = {"radius": len(RADII), "trial": TRIALS, "layer": 1}
    for variable in stored:
        assert arrays[variable.name].shape == tuple(length[dim] for dim in variable.dims[1:])
    variable, reduce = next(iter(KNOWN[name].items()))
    np.testing.assert_allclose(reduce(arrays[variable]), KNOWN[name]["expected"], rtol=1e-9)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.title.partition(":")[0])
def test_a_table_is_consistent(table):
    variables = {variable.name for variable in (*store.VARIABLES, *store.DERIVED)}
    for number in table.numbers:
        quantity = number.quantity
        assert set(quantity.reads) <= variables
        assert quantity.floor in ("", *variables)
        assert quantity.more_robust in (None, LOWER, HIGHER)
        assert callable(number.statistic) or number.statistic in (*QUANTILES, "mean", "share")
        assert callable(number.statistic) or number.name.endswith(f"_{number.statistic}")
        assert number.by_radius or number.overall
        assert table.layered or not quantity.layered
    assert table.columns, "a table without columns shows nothing"


def test_names_are_unique_and_declared_once():
    names = [number.name for table in TABLES for number in table.numbers]
    assert len(names) == len(set(names)) == len(NUMBERS)


def test_what_is_compared_has_a_title_and_a_name_of_its_own():
    compared = [quantity for table in TABLES for quantity in table.compared]
    assert all(quantity.title for quantity in compared)
    assert len({quantity.name for quantity in compared}) == len(compared)


def test_profiles_are_of_variables_with_a_layer():
    dims = {variable.name: variable.dims for variable in (*store.VARIABLES, *store.DERIVED)}
    for measure in REGISTRY.values():
        for profile in measure.profiles:
            assert "layer" in dims[profile.variable]
            assert profile.linear == "" or "layer" in dims[profile.linear]


def test_a_table_never_shows_two_radii_alike():
    assert radius_labels([5.0, 0.5, 1 / 3]) == {1 / 3: "0.333333", 0.5: "0.5", 5.0: "5"}
    close = radius_labels([1.0000001, 1.0000002])
    assert len(set(close.values())) == 2
    assert [float(text) for text in close.values()] == list(close)


def test_every_number_is_said_in_words():
    from analyzer.summary import meaning_of
    from analyzer.summary.meanings import MEANINGS

    quantities = {number.quantity.name: number.quantity for number in NUMBERS.values()}
    assert {*MEANINGS} <= {*quantities, *NUMBERS}
    fitted = {name for name in NUMBERS if name in MEANINGS}
    assert {name for name, q in quantities.items() if not q.title and name not in MEANINGS} <= {"lipschitz_fit"}
    assert fitted >= {name for name, number in NUMBERS.items() if number.quantity.name == "lipschitz_fit"}
    assert meaning_of("lipschitz_below_one_share").startswith(
        "share of an image's perturbations with L_x below 1; share"
    )
    assert meaning_of("no such number") == ""
