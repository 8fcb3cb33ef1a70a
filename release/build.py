"""``make release``: the wheel, the bundle for desktop hosts and their checksums, in ``dist/``.

The bundle (``.mcpb``, manifest 0.4, type ``uv``) is the source with its manifest; the host's uv installs what
``pyproject.toml`` asks for. Files carry a fixed time, so that the same source gives the same bundle.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("common", "tools", "server", "orchestrator", "skills")
FILES = ("pyproject.toml", "README.md", "LICENSE")
FIXED_TIME = (2026, 1, 1, 0, 0, 0)
BUILD_SECONDS = 600


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="default: dist/")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    version = checked_version()
    wheel = build_wheel(out)
    bundle = build_bundle(out / f"mlintern-{version}.mcpb")
    (out / "server.json").write_text(json.dumps(with_bundle(server_entry(), bundle), indent=2) + "\n")
    sums = "".join(f"{digest(path)}  {path.name}\n" for path in (wheel, bundle, out / "server.json"))
    (out / "SHA256SUMS").write_text(sums)
    print(sums, end="")
    return 0


def checked_version() -> str:
    """The version of ``pyproject.toml``, which every other file must repeat."""
    version = str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])
    for name in ("server.json", "release/manifest.json", ".claude-plugin/plugin.json"):
        if (found := json.loads((ROOT / name).read_text())["version"]) != version:
            raise SystemExit(f"{name} says version {found}; pyproject.toml says {version}.")
    return version


def server_entry() -> dict[str, object]:
    entry: dict[str, object] = json.loads((ROOT / "server.json").read_text())
    return entry


def build_wheel(out: Path) -> Path:
    """The wheel of this tree, built from a copy: a build folder that an older build left would be packed too."""
    for old in out.glob("*.whl"):
        old.unlink()
    with tempfile.TemporaryDirectory() as folder:
        source = copied(Path(folder) / "source")
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(source)]
        subprocess.run(command, check=True, timeout=BUILD_SECONDS)
    [wheel] = out.glob("mlintern-*.whl")
    return wheel


def copied(folder: Path) -> Path:
    """What a wheel is built from, in ``folder``."""
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    return folder


def build_bundle(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, file in sorted(bundled()):
            entry = zipfile.ZipInfo(name, FIXED_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            bundle.writestr(entry, file.read_bytes())
    return path


def bundled() -> Iterator[tuple[str, Path]]:
    """Every file of the bundle, by its name there."""
    yield "manifest.json", ROOT / "release" / "manifest.json"
    yield from ((name, ROOT / name) for name in FILES)
    for room in ROOMS:
        for file in (ROOT / room).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                yield file.relative_to(ROOT).as_posix(), file


def with_bundle(entry: dict[str, object], bundle: Path) -> dict[str, object]:
    """The registry's entry with the bundle's checksum, for the publisher; its address is theirs to set."""
    meta = {"io.modelcontextprotocol.registry/publisher-provided": {"bundle": bundle.name, "sha256": digest(bundle)}}
    return {**entry, "_meta": meta}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
