"""A typical batch of uneven samples against drawn ones."""

import math

import numpy as np
import pytest

from keras_autoinit.laws import BATCH, SIGNALS, dominance, law_with, log_mean, straight

DRAWS = 20_000


@pytest.fixture(scope="module")
def chances():
    return {"a": np.random.default_rng(0).standard_normal((DRAWS, BATCH))}


def leaning(chance, variance):
    """Logarithms of this variance that lean to the right as they are said to."""
    most, half = SIGNALS
    lean = most * variance / (variance + half)
    raised = np.expm1(lean * chance) / lean * np.exp(-((lean * chance) ** 2) / 4)
    return math.sqrt(variance) * (raised - raised.mean()) / raised.std()


@pytest.mark.parametrize("variance", [1e-9, 0.5, 4.0])
def test_a_typical_batch_leans_the_more_the_further_it_is_spread(chances, variance):
    logs, shares = law_with(variance).batch()
    places = logs / math.sqrt(variance)
    assert shares.sum() == pytest.approx(1.0)
    assert shares @ places == pytest.approx(0.0, abs=1e-12)
    assert shares @ places**2 == pytest.approx(1.0)
    law = np.mean((leaning(chances["a"], variance) / math.sqrt(variance)) ** 3) if variance else 0.0
    # What is left of the tail in 32 samples at the quantiles, taken together in groups.
    assert 0.7 * law - 1e-9 <= shares @ places**3 <= law + 0.05


@pytest.mark.parametrize("variance", [0.1, 1.0, 4.0])
def test_the_mean_of_a_batch_lies_between_that_of_half_of_all_and_that_of_all(chances, variance):
    means = np.exp(leaning(chances["a"], variance)).mean(1)
    # The groups of the batch blur its second largest samples: a tenth of what the logarithm itself goes to.
    blur = 0.1 * math.sqrt(variance)
    assert np.log(np.median(means)) - blur < log_mean(law_with(variance)) < np.log(means.mean()) + blur


@pytest.mark.parametrize("variance", [0.3, 1.4])
def test_few_samples_outweigh_all_others(chances, variance):
    logs = leaning(chances["a"], variance)
    # The variance that is told is that of a batch.
    logs *= math.sqrt(variance) / logs.std(1, keepdims=True)
    sizes = np.exp(logs)
    weight = (sizes**2).mean(1) / sizes.mean(1) ** 2
    # As above: the largest sample of a typical batch is the mean of those of all.
    assert np.median(weight) < dominance(law_with(variance)) < np.mean(weight) * 1.1


def test_the_power_of_a_power_is_straight():
    law = law_with(0.7)
    logs, _ = law.batch()
    assert straight(law, 3 * np.exp(0.4 * logs)) == pytest.approx(0.4)
