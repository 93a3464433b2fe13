"""``python -m flows.cli`` is ``motet``."""

import sys

from flows.cli import main

sys.exit(main())
