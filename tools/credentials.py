"""Files that hold credentials: no tool that reads data opens one for any caller."""

from __future__ import annotations

import re
from pathlib import Path

from mlintern.tools.errors import Blocked

_FOLDERS = frozenset({
    ".ssh", ".aws", ".gnupg", ".docker", ".kube", ".azure", ".gcloud", "gcloud", ".oci", ".password-store",
    ".mozilla", "keyrings", ".thunderbird", ".vault", ".terraform.d", ".sops", "github-copilot",
})  # fmt: skip
_NAMES = re.compile(
    r"^(\.netrc|_netrc|\.pgpass|\.npmrc|\.pypirc|\.env(\..+)?|\.git-credentials|\.htpasswd|\.my\.cnf|\.s3cfg|\.boto"
    r"|id_(rsa|dsa|ecdsa|ed25519)(\.pub)?|.*\.(pem|key|p12|pfx|jks|keystore|kdbx)|credentials?(\..+)?|.*[-_.]credentials?\..+"
    r"|application_default_credentials\.json|service[-_]?account.*\.json|client_secret.*\.json|token(s)?(\.(json|txt))?"
    r"|(stored_)?tokens?|secrets?(\..+)?|passwords?(\..+)?|passwd|shadow|authinfo|kubeconfig|.*_history"
    r"|auth\.json|kaggle\.json|rclone\.conf|\.databrickscfg|\.vault-token|\.yarnrc(\.yml)?|\.claude\.json|cookies(\..+)?"
    r"|key[34]\.db|logins\.json|wallet(\.dat)?|\.condarc|pip\.conf)$",
    re.IGNORECASE,
)


def refuse_credentials(path: Path) -> None:
    """Refuse a file that is known to hold credentials, by its name or by the folder that it is in.

    Raises:
        Blocked: it is one.
    """
    for place in {path.absolute(), path.resolve()}:
        hidden = place.parts[1:2] in (("proc",), ("sys",)) or place.parts[1:3] == ("run", "secrets")
        inside = hidden or {part.lower() for part in place.parts} & _FOLDERS
        if inside or _NAMES.match(place.name):
            raise Blocked(
                f"{path} is a place where credentials are kept, and is never read as data.",
                service="local files",
                next_step="If it holds data, copy it to a file of another name.",
            )
