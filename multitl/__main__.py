"""`python -m multitl` is the command `multitl`."""

import sys

from multitl.cli import main

sys.exit(main())
