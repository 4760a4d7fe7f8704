"""The command line, as `python -m transfer_jax COMMAND …`."""

import sys

from transfer_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
