"""Keeps the layers apart: a module imports only from modules of a strictly lower rank.

The ranks are read from the table in CONTRIBUTING.md, so the picture there stays true.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "keras_autoinit"
# The modules that may read what Keras keeps private.
READERS = ("keras_autoinit.graphs", "keras_autoinit.traces")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def ranks():
    rows = re.findall(r"^\| ([\d.]+) \| (.+?) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    return {
        "keras_autoinit" if name == "__init__" else f"keras_autoinit.{name}": float(rank)
        for rank, names in rows
        for name in re.findall(r"`([\w.]+)`", names)
    }


def imported(path):
    """Every module of the package that a file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keras_autoinit"):
            # `from package import module` imports a module; `from module import name` the other.
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in MODULES else node.module for name in names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("keras_autoinit"))


def test_the_table_names_every_module_and_no_other():
    assert set(ranks()) == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_to_lower_ranks(module):
    rank = ranks()
    assert {name: rank[name] for name in imported(MODULES[module]) if rank[name] >= rank[module]} == {}


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_a_backend_or_keras_internals_at_its_top(module):
    tree = ast.parse(MODULES[module].read_text())
    names = {
        name
        for node in tree.body
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not {name for name in names if re.match(r"(tensorflow|jax|torch|rich|matplotlib|sklearn)\b", name)}
    assert module.startswith(READERS) or not {name for name in names if name.startswith("keras.src")}


def test_only_graphs_and_traces_read_what_keras_keeps_private():
    private = re.compile(r"\._(nodes|inbound|outbound|layers|flatten_layers|functional|initializer)\w*\b")
    readers = {name for name, path in MODULES.items() if private.search(path.read_text())}
    assert [name for name in readers if not name.startswith(READERS)] == []
