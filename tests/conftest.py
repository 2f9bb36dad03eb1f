"""Keeps the backends quiet, and offers the flag that rewrites golden files."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest


def pytest_addoption(parser):
    parser.addoption("--regenerate", action="store_true", help="rewrite golden files and the README's table")


@pytest.fixture
def regenerate(request):
    return request.config.getoption("--regenerate")
