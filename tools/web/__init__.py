"""The one way out: every networked tool asks the outside through `Web`.

It keeps each service's rate, waits as it is told to, remembers who asked us to stay away, caches on disk, sends a
token to no host but its own, and refuses addresses inside the user's network.
"""

from mlintern.tools.web.client import Parameters, Web
from mlintern.tools.web.exchange import Answer, CallCounter, Spent
from mlintern.tools.web.refusals import shape_errors
from mlintern.tools.web.services import DAY, FOREVER, IDENTITY_AGE, SEARCH_AGE, SERVICES, Service

__all__ = [
    "DAY",
    "FOREVER",
    "IDENTITY_AGE",
    "SEARCH_AGE",
    "SERVICES",
    "Answer",
    "CallCounter",
    "Parameters",
    "Service",
    "Spent",
    "Web",
    "shape_errors",
]
