"""The table: activation and role -> scheme, with a reason and a source. Data, no code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Gain = Literal["none", "own", "slope"]


@dataclass(frozen=True)
class Recommendation:
    """One row.

    Attributes:
        scheme: name of the scheme, without `autoinit>`.
        gain: `none`: the scheme as it is; `own`: with the activation's own gain, which restores a
            unit second moment; `slope`: a rectifier's, relative to that of ReLU, which He has
            built in.
        reason: one sentence.
        source: where it comes from.
    """

    scheme: str
    gain: Gain
    reason: str
    source: str


GLOROT = "Glorot and Bengio 2010"
HE = "He et al. 2015, arXiv 1502.01852"
LECUN = "LeCun et al. 1998"
PRESS = "Press and Wolf 2017, arXiv 1608.05859"
SAXE = "Saxe et al. 2014, arXiv 1312.6120"
VASWANI = "Vaswani et al. 2017, arXiv 1706.03762"
MEASURED = "Gaussian integral; Hayou et al. 2019, arXiv 1902.06853"

_ODD = "Odd with unit slope at zero: Xavier keeps it in its linear range, forward and backward."
_SQUASHING = "Nearly linear around zero: Xavier keeps it from saturating."
_SOFTMAX = "Logits of moderate size: Xavier keeps signal and gradient."
_OWN = "The activation's own gain restores a unit second moment."
_PROJECTION = "Projection of an attention layer."
_SHRINKING = "Suppresses small values: its own gain makes up for them."

ACTIVATIONS: dict[str, Recommendation] = {
    "sigmoid": Recommendation("xavier_normal", "none", _SQUASHING, GLOROT),
    "tanh": Recommendation("xavier_normal", "none", _ODD, GLOROT),
    "relu": Recommendation("he_normal", "slope", "Half of the signal is cut off: twice the variance makes up.", HE),
    "leaky_relu": Recommendation("he_normal", "slope", "As ReLU, with the slope below zero in the gain.", HE),
    "softmax": Recommendation("xavier_normal", "none", _SOFTMAX, GLOROT),
    "silu": Recommendation("he_normal", "none", "Shaped like ReLU, so He suits it too.", HE),
    "linear": Recommendation("xavier_normal", "none", "Linear: Xavier keeps signal and gradient.", GLOROT),
    "relu6": Recommendation("he_normal", "none", "A ReLU whose cap a unit signal hardly meets.", HE),
    "selu": Recommendation(
        "lecun_normal",
        "none",
        "Normalizes itself when the variance is 1 / fan_in.",
        "Klambauer et al. 2017, arXiv 1706.02515",
    ),
    "gelu": Recommendation("lecun_normal", "own", _OWN, MEASURED),
    "mish": Recommendation("lecun_normal", "own", _OWN, MEASURED),
    "elu": Recommendation("lecun_normal", "own", _OWN, MEASURED),
    "celu": Recommendation("lecun_normal", "own", _OWN, MEASURED),
    "hard_silu": Recommendation("lecun_normal", "own", _OWN, MEASURED),
    "softplus": Recommendation("lecun_normal", "own", _OWN, MEASURED),
    "squareplus": Recommendation("lecun_normal", "own", _OWN, MEASURED),
    "sparse_plus": Recommendation("lecun_normal", "own", _OWN, MEASURED),
    "log_sigmoid": Recommendation("lecun_normal", "own", _OWN, MEASURED),
    "exponential": Recommendation("lecun_normal", "own", "Grows fast: its own gain keeps it small.", MEASURED),
    "relu_squared": Recommendation("lecun_normal", "own", _OWN, "So et al. 2021, arXiv 2109.08668"),
    "threshold": Recommendation("lecun_normal", "own", _OWN, MEASURED),
    "tanh_shrink": Recommendation("lecun_normal", "own", _SHRINKING, MEASURED),
    "soft_shrink": Recommendation("lecun_normal", "own", _SHRINKING, MEASURED),
    "hard_shrink": Recommendation("lecun_normal", "own", _SHRINKING, MEASURED),
    "softsign": Recommendation("xavier_normal", "none", _ODD, GLOROT),
    "hard_tanh": Recommendation("xavier_normal", "none", _ODD, GLOROT),
    "sin": Recommendation("xavier_normal", "none", _ODD, GLOROT),
    "hard_sigmoid": Recommendation("xavier_normal", "none", _SQUASHING, GLOROT),
    "sparse_sigmoid": Recommendation("xavier_normal", "none", _SQUASHING, GLOROT),
    "glu": Recommendation(
        "xavier_normal",
        "none",
        "Half linear, half a sigmoid gate: Xavier suits both.",
        "Dauphin et al. 2017, arXiv 1612.08083",
    ),
    "log_softmax": Recommendation("xavier_normal", "none", _SOFTMAX, GLOROT),
    "sparsemax": Recommendation("xavier_normal", "none", _SOFTMAX, GLOROT),
}

UNKNOWN = Recommendation(
    "lecun_normal", "own", "Not in the table: its gain was measured.", "Gaussian integral of the callable"
)

ROLES: dict[str, Recommendation] = {
    "input": Recommendation("xavier_normal", "none", "Input of a recurrent cell, gate by gate.", GLOROT),
    "recurrent": Recommendation(
        "orthogonal", "none", "Recurrent: orthogonal gate by gate, so that time steps keep their length.", SAXE
    ),
    "depthwise": Recommendation(
        "lecun_normal", "none", "Handed on to the pointwise kernel: fans counted channel by channel.", LECUN
    ),
    "embeddings": Recommendation(
        "lecun_normal", "none", "A look-up sums nothing: unit variance gives the next layer a unit signal.", LECUN
    ),
    "factor": Recommendation(
        "lecun_normal", "none", "Handed on to another kernel of its layer: the signal keeps its size.", LECUN
    ),
    "positions": Recommendation("lecun_normal", "none", "Added to the tokens, so of their size.", VASWANI),
    "token": Recommendation(
        "lecun_normal",
        "none",
        "Stands among the tokens, so of their size.",
        "Dosovitskiy et al. 2021, arXiv 2010.11929",
    ),
    "tied": Recommendation(
        "lecun_normal", "none", "Tied: the output, which sums over its width, decides, and keeps logits small.", PRESS
    ),
    "beside_tied": Recommendation(
        "lecun_normal", "none", "Added to a table that is tied to the output, so of its size.", PRESS
    ),
    "reverse": Recommendation("xavier_normal", "none", _SOFTMAX, GLOROT),
    "query": Recommendation("xavier_normal", "none", _PROJECTION, VASWANI),
    "key": Recommendation("xavier_normal", "none", _PROJECTION, VASWANI),
    "value": Recommendation("xavier_normal", "none", _PROJECTION, VASWANI),
    "output": Recommendation("xavier_normal", "none", _PROJECTION, VASWANI),
    "gate": Recommendation(
        "xavier_normal",
        "none",
        "Gate of an attention layer: a sigmoid, nearly linear around zero.",
        "Qiu et al. 2025, arXiv 2505.06708",
    ),
}

# Roles of weights that keep what their layer gives them, whatever they feed, and why.
KEPT: dict[str, str] = {
    "bias": "A bias of several axes: starts from what its layer says, as every bias does.",
    "scale": "A scale: starts from a constant, and a random one would bend the signal.",
    "slope": "A slope, one for each unit: starts from a constant, and is no kernel.",
    "constant": "Starts from a constant, as its layer says: a random start would undo what that is for.",
    "adapter": "Part of a LoRA adapter, whose product must start at zero.",
    "fourier": "Starts as a Fourier transform.",
    "unknown": (
        "Drawn by the layer itself, which keeps no initializer for it, and not known for what: "
        "tell with `keras_autoinit.register_slots`."
    ),
}
