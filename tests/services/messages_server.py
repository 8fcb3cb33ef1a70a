"""Moved: the scripted Messages server also serves the rehearsal, so it lives in the package. Import it from there."""

from mlintern.orchestrator.rehearsal.messages_server import *  # noqa: F403
