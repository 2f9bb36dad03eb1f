"""Keeps the backends quiet, and offers the flag that rewrites golden files."""

import gc
import os
import re

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import pytest

# The same examples every time: no test passes by luck, and none fails by it.
hypothesis.settings.register_profile("fixed", derandomize=True)
hypothesis.settings.load_profile("fixed")

# Tests of what computes with NumPy alone, or turns records into text, pages and files: one run of
# them is enough, and TensorFlow's is it. The programs among them train, which takes long on JAX.
BACKEND_FREE = {
    "test_averages.py",
    "test_axes.py",
    "test_channels.py",
    "test_cli.py",
    "test_closed_forms.py",
    "test_criticality.py",
    "test_demo.py",
    "test_depth_faults.py",
    "test_docs.py",
    "test_draws.py",
    "test_examples.py",
    "test_fans.py",
    "test_findings.py",
    "test_golden_plans.py",
    "test_import_ranks.py",
    "test_integrals.py",
    "test_judgement.py",
    "test_layer_faults.py",
    "test_maxima.py",
    "test_moments.py",
    "test_pages.py",
    "test_plans.py",
    "test_progress.py",
    "test_public_surface.py",
    "test_readings.py",
    "test_readme.py",
    "test_recipes.py",
    "test_recommendations.py",
    "test_rectified.py",
    "test_rendering.py",
    "test_responses.py",
    "test_rotations.py",
    "test_selection.py",
    "test_sums.py",
    "test_taps.py",
    "test_thresholds.py",
    "test_words.py",
}


def pytest_configure(config):
    # Workers, which inherit this, share the cores already. Threads of NumPy's linear algebra that wait for a core do so
    # in a loop: where there were more of them than cores, a QR decomposition took ten times as long.
    if getattr(config.option, "numprocesses", None):
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Has one worker do all tests of a model of the zoo, which is built and planned once for them.

    By their names: under pytest 9.2, pytest-xdist 3.8 does not see the groups that tests are marked with, and built
    most models twice.
    """
    from xdist.scheduler import LoadGroupScheduling

    class ByModel(LoadGroupScheduling):
        def _split_scope(self, nodeid):
            path, _, test = nodeid.partition("::")
            found = path.endswith("test_zoo.py") and re.search(r"\[(\w+)\]", test)
            return found[1] if found else super()._split_scope(nodeid)

    return ByModel(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_ignore_collect(collection_path):
    other = os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow"
    return True if other and collection_path.name in BACKEND_FREE else None


@pytest.fixture(scope="module", autouse=True)
def _old_objects_are_left_alone():
    """Keeps the garbage collector from looking through what a backend and Keras bring along, again and again.

    Those millions of objects stay until the end; each full collection, of which a test makes several, took a quarter
    of a second for them, as long as many a test. Once for each file, as some load more.
    """
    gc.collect()
    gc.freeze()


def pytest_addoption(parser):
    parser.addoption("--regenerate", action="store_true", help="rewrite golden files and the README's table")


@pytest.fixture
def regenerate(request):
    return request.config.getoption("--regenerate")
