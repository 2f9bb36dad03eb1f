"""What users may import is a promise: kept complete, sorted, documented and cheap to import."""

import ast
import doctest
import inspect
import subprocess
import sys

import pytest

import keras_autoinit

PUBLIC = [getattr(keras_autoinit, name) for name in keras_autoinit.__all__ if name[0] != "_"]
DOCUMENTED = [thing for thing in PUBLIC if inspect.isclass(thing) or inspect.isfunction(thing)]
SCHEMES = [thing for thing in DOCUMENTED if inspect.isclass(thing) and issubclass(thing, keras_autoinit.schemes.Scheme)]


def test_all_is_sorted_and_complete():
    names = keras_autoinit.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    exported = {
        name
        for name, thing in vars(keras_autoinit).items()
        if not name.startswith("_") and getattr(thing, "__module__", "").startswith("keras_autoinit")
    }
    assert exported <= set(names)


@pytest.mark.parametrize("thing", DOCUMENTED, ids=lambda thing: thing.__name__)
def test_every_public_name_says_what_it_is_in_one_line(thing):
    first, _, rest = inspect.getdoc(thing).partition("\n")
    assert first.endswith((".", ":"))
    assert not rest or rest.startswith("\n")


@pytest.mark.parametrize("thing", SCHEMES, ids=lambda thing: thing.__name__)
def test_every_scheme_says_when_to_use_it_and_shows_an_example(thing):
    text = inspect.getdoc(thing)
    assert "When to use:" in text
    assert doctest.DocTestParser().get_examples(text)
    assert all(f"{argument}:" in text for argument in inspect.signature(thing).parameters)


def test_errors_derive_from_what_a_stranger_would_catch():
    for thing in DOCUMENTED:
        if inspect.isclass(thing) and issubclass(thing, keras_autoinit.AutoInitError):
            assert thing is keras_autoinit.AutoInitError or issubclass(thing, (ValueError, TypeError, ImportError))


def test_what_is_loaded_on_demand_is_what_type_checkers_see():
    tree = ast.parse(inspect.getsource(keras_autoinit))
    (seen,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = {alias.name: node.module.split(".", 1)[1] for node in seen.body for alias in node.names}
    assert imports == keras_autoinit._LAZY
    assert set(imports) <= set(keras_autoinit.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'autoinit_'"):
        keras_autoinit.autoinit_  # noqa: B018


def test_importing_the_package_loads_no_method_but_the_table():
    code = "import sys, keras_autoinit; print(sorted(n for n in sys.modules if n.startswith('keras_autoinit.by_')))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "['keras_autoinit.by_table']\n"


def test_the_package_imports_no_extra():
    code = (
        "import sys, keras; before = set(sys.modules); import keras_autoinit; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new & {'rich', 'matplotlib', 'sklearn', 'scipy', 'jax', 'torch', 'tensorflow', 'pandas'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
