"""Who computes with a weight decides on its scale: one operation, several, a whole layer, or an output far away."""

import keras
import numpy as np
from keras import layers, ops

from keras_autoinit.by_table import Table
from keras_autoinit.graphs import read
from keras_autoinit.rewriting import targets_of
from keras_autoinit.selection import Selection
from keras_autoinit.users import BY_OUTPUT, by_output, groups, is_reverse, parts, users
