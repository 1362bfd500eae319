"""`python -m multitl` is the command `multitl`."""

import sys

from multitl.cli.main import main

sys.exit(main())
