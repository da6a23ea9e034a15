# ruff: noqa: PTH100, PTH120 - importing pathlib would cost milliseconds of every start
"""Entry point: `python -I -S .../dusuan/shepherd/__main__.py ATTEMPT_DIR LOCK_FD`."""

import os
import sys

# Isolated mode (-I -S) starts fast and trusts nothing of the environment, so the package's own
# folder has to be put on the path by hand.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from dusuan.shepherd.loop import main

main(sys.argv)
