"""Keeps the backends quiet, and offers the flag that rewrites golden files."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import pytest

# The same examples every time: no test passes by luck, and none fails by it.
hypothesis.settings.register_profile("fixed", derandomize=True)
hypothesis.settings.load_profile("fixed")

# Tests of what computes with NumPy alone, or turns records into text, pages and files: one run of
# them is enough, and TensorFlow's is it. The programs among them train, which takes long on JAX.
BACKEND_FREE = {
    "test_cli.py",
    "test_closed_forms.py",
    "test_criticality.py",
    "test_depth_faults.py",
    "test_demo.py",
    "test_draws.py",
    "test_examples.py",
    "test_fans.py",
    "test_findings.py",
    "test_golden_plans.py",
    "test_import_ranks.py",
    "test_integrals.py",
    "test_judgement.py",
    "test_layer_faults.py",
    "test_moments.py",
    "test_pages.py",
    "test_plans.py",
    "test_progress.py",
    "test_public_surface.py",
    "test_readings.py",
    "test_recipes.py",
    "test_recommendations.py",
    "test_rectified.py",
    "test_rendering.py",
    "test_selection.py",
    "test_thresholds.py",
    "test_words.py",
}


def pytest_ignore_collect(collection_path):
    other = os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow"
    return True if other and collection_path.name in BACKEND_FREE else None


def pytest_addoption(parser):
    parser.addoption("--regenerate", action="store_true", help="rewrite golden files and the README's table")


@pytest.fixture
def regenerate(request):
    return request.config.getoption("--regenerate")
