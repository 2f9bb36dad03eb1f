"""After the method `data`, what each weight of the zoo's models makes has the spread that its row states.

That is one, or the row says why not. What measures here is a probe of its own, which wraps the
layers; most models take a second or two, all of them together some minutes.
"""

import gc

import keras
import pytest
from probes import Probe
from test_zoo import RUN, SET_WHEN_BUILT
from zoo import ZOO

from keras_autoinit import AutoInit
from keras_autoinit.graphs import read
from keras_autoinit.runs import FIRST

# What float32 sums of some thousand numbers leave of a standard deviation.
TOLERANCE = 1e-3
# With two samples, a batch normalization late in a network of small pictures makes signs of differences.
SAMPLES = 8
QUICK = ["BertBackbone", "MobileNetV3Small", "RWKV7Backbone", "ViTBackbone"]
# What a row may say that states no spread, or another than one.
REASONS = ("No scale was measured", "The scale is kept", "no use of it was seen", "ends a residual branch")
# No spread of theirs is stated.
SET = ("bias", "moving_mean", "moving_variance")


def check(name):
    keras.utils.clear_session()
    specimen = ZOO[name]
    model = specimen.build()
    batch = specimen.inputs(model, SAMPLES)
    exclude = SET_WHEN_BUILT.get(name)
    plan = AutoInit("data", seed=1, exclude=exclude).apply(model, batch)
    slots = {f"{place.path}/{slot.weight}": (place.layer, slot) for place in read(model).places for slot in place.slots}
    probe = Probe(model, batch)
    rows = [row for row in plan.changes if row.role not in SET]
    for row in rows:
        if row.output_std != pytest.approx(1, abs=TOLERANCE):
            assert any(reason in row.reason for reason in REASONS), f"{row.path}: {row.output_std}. {row.reason}"
        if row.output_std is not None:
            layer, slot = slots[row.path]
            assert_made(row, probe, slot.variable(layer))
    gc.collect()
    return rows


def assert_made(row, probe, variable):
    calls = len(probe.made[id(variable)])
    assert calls, f"{row.path}: the probe saw nothing. {row.reason}"
    spreads = [probe.std(variable, number) for number in (range(1, calls + 1) if FIRST in row.reason else (None,))]
    assert any(spread == pytest.approx(row.output_std, abs=TOLERANCE) for spread in spreads), (
        f"{row.path} makes {spreads}, and its row states {row.output_std}. {row.reason}"
    )


@pytest.mark.parametrize("name", [name for name in QUICK if name in ZOO])
def test_every_weight_makes_what_its_row_states(name):
    assert len(check(name)) >= 10


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(name for name in RUN if name in ZOO and name not in QUICK))
def test_every_weight_of_the_rest_makes_what_its_row_states(name):
    assert len(check(name)) >= 3
