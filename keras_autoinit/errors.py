"""The package's exceptions.

    AutoInitError
    ├── SchemeError (ValueError)         a scheme was given arguments or a shape it cannot serve
    ├── ActivationError (ValueError)     an activation has no name, no gain, or is not elementwise
    ├── PlanError (ValueError)           a plan does not fit the model, or its text cannot be read
    ├── SelectionError (ValueError)      a selector (`include`, `exclude`, `where`) matched nothing
    ├── DataError (ValueError)           data are missing, cannot be read, or do not fit the model
    ├── ModelTypeError (TypeError)       something that is no Keras model was handed in
    ├── ReportError (ValueError)         a report cannot be read, or has no such layer
    ├── UnhealthyModelError (ValueError) `raise_if_unhealthy` met a model with faults
    ├── RebuildError (ValueError)        a layer cannot be built once more from its configuration
    ├── TrainedModelError (ValueError)   the model looks trained and `overwrite=True` was not given
    └── MissingExtraError (ImportError)  an optional package is needed; says which `pip install` brings it

Each says what arrived, what was expected and what to do, and also derives from the built-in
exception that a caller who does not know this package would catch.
"""


class AutoInitError(Exception):
    """Base class of every exception that the package raises."""


class SchemeError(AutoInitError, ValueError):
    """A scheme was given arguments or a shape it cannot serve."""


class ActivationError(AutoInitError, ValueError):
    """An activation has no known name, no gain, or is not elementwise."""


class PlanError(AutoInitError, ValueError):
    """A plan does not fit the model, or its text cannot be read."""


class SelectionError(AutoInitError, ValueError):
    """A selector (`include`, `exclude`, `where`) is malformed or matched nothing."""


class DataError(AutoInitError, ValueError):
    """Data are missing, cannot be read, or do not fit the model."""


class ReportError(AutoInitError, ValueError):
    """A report or a finding cannot be read, or holds no layer of that name."""


class UnhealthyModelError(AutoInitError, ValueError):
    """A model has faults; the message lists them.

    Attributes:
        report: all that was found.
    """

    def __init__(self, message: str, report: object = None) -> None:
        super().__init__(message)
        self.report = report


class ModelTypeError(AutoInitError, TypeError):
    """Something that is no Keras model was handed in."""


class RebuildError(AutoInitError, ValueError):
    """A layer cannot be built once more from its configuration, so its weights cannot be redrawn."""


class TrainedModelError(AutoInitError, ValueError):
    """The model looks trained, and `overwrite=True` was not given.

    Attributes:
        layers: names of the layers (and `"optimizer"`) that show it.
    """

    def __init__(self, message: str, layers: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.layers = layers


class MissingExtraError(AutoInitError, ImportError):
    """An optional package is needed; the message says which `pip install` brings it."""


class TrainedModelWarning(UserWarning):
    """The callback found a model that has been trained, and left it alone."""
