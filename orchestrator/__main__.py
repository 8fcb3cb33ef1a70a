"""``python -m mlintern.orchestrator`` is ``mlintern-orchestrate``."""

from __future__ import annotations

import sys

from mlintern.orchestrator.cli import main

if __name__ == "__main__":
    sys.exit(main())
