"""`python -m keras_autoinit`."""

import sys

from keras_autoinit.cli import main

if __name__ == "__main__":
    sys.exit(main())
