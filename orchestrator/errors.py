"""The one base class of what can go wrong by name in the orchestrator.

Each error stands in the module whose work it ends; its text says what happened and what to do next.
"""

from __future__ import annotations


class OrchestratorError(Exception):
    """Something went wrong that has a name; anything else is a bug and shows as one."""
