"""Moved: the scripted Messages server also serves the rehearsal, so it lives in the package. Import it from there."""

from mlintern.orchestrator.rehearsal.turns import *  # noqa: F403
