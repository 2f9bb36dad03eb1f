"""Keeps the backends quiet, and offers the flag that rewrites golden files."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import pytest

# The same examples every time: no test passes by luck, and none fails by it.
hypothesis.settings.register_profile("fixed", derandomize=True)
hypothesis.settings.load_profile("fixed")

# Tests of what computes with NumPy alone: one run of them is enough, and TensorFlow's is it.
BACKEND_FREE = {
    "test_closed_forms.py",
    "test_criticality.py",
    "test_draws.py",
    "test_fans.py",
    "test_import_ranks.py",
    "test_integrals.py",
    "test_moments.py",
    "test_recommendations.py",
}


def pytest_ignore_collect(collection_path):
    other = os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow"
    return True if other and collection_path.name in BACKEND_FREE else None


def pytest_addoption(parser):
    parser.addoption("--regenerate", action="store_true", help="rewrite golden files and the README's table")


@pytest.fixture
def regenerate(request):
    return request.config.getoption("--regenerate")
