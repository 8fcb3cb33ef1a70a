"""``python -m mlintern.server`` is ``mlintern-server``."""

from __future__ import annotations

import sys

from mlintern.server.cli import main

if __name__ == "__main__":
    sys.exit(main())
