"""What real models are told, line by line: a change of the table or of the reading shows here first.

`pytest --regenerate` rewrites the files under tests/golden.
"""

from pathlib import Path

import keras
import pytest

from keras_autoinit import AutoInit

GOLDEN = Path(__file__).parent / "golden"
MODELS = {
    "MobileNetV2": {"input_shape": (32, 32, 3)},
    "ConvNeXtTiny": {"input_shape": (32, 32, 3)},
    "Xception": {"input_shape": (71, 71, 3)},
}


@pytest.mark.parametrize("name", MODELS)
def test_the_plan_of_a_real_model(name, regenerate):
    # Automatic names, such as conv2d_3, count from here.
    keras.utils.clear_session()
    plan = AutoInit(seed=0).plan(getattr(keras.applications, name)(weights=None, **MODELS[name]))
    path = GOLDEN / f"{name}.txt"
    if regenerate:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{plan}\n")
    assert f"{plan}\n" == path.read_text()
    sizes = [int(line.split()[1].split("x")[-1]) for line in path.read_text().splitlines()[1:-1]]
    assert sizes == [row.shape[-1] for row in plan]
