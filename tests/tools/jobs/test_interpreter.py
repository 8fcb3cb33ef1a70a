"""Which Python runs a script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlintern.tools.errors import BadInput, MissingDependency
from mlintern.tools.jobs.backends.local.interpreter import Installed, choose, header_of, installed_in, unmet

HAVE = Installed(
    python="3.12.1",
    distributions={
        "torch": ("2.13.0+cpu", ()),
        "trl": ("1.16.0", ("accelerate>=1.4", 'peft>=0.8; extra == "peft"')),
        "ruamel-yaml": ("0.18", ()),
    },
)
SCRIPT = (
    '# /// script\n# requires-python = ">=3.11"\n# dependencies = [\n#   "rich==99.0",\n# ]\n# ///\nprint("hello")\n'
)


@pytest.mark.parametrize(
    ("requirements", "missing"),
    [
        (["torch==2.13.0", "trl>=1.16,<2"], []),
        (["Ruamel.YAML"], []),
        (["torch>=3"], ["torch>=3"]),
        (["datasets"], ["datasets"]),
        (["trl[peft]"], ["peft>=0.8"]),
        (['datasets; sys_platform == "win32"'], []),
        (["torch @ https://example.org/torch.whl"], ["torch@ https://example.org/torch.whl"]),
    ],
)
def test_a_requirement_counts_as_met_only_when_it_really_is(requirements: list[str], missing: list[str]) -> None:
    assert [text.replace(" @", "@") for text in unmet(requirements, ">=3.11", installed=HAVE)] == missing


def test_a_package_whose_own_requirements_cannot_be_read_does_not_do() -> None:
    old = Installed("3.11.7", {"x": ("1.0", ("foo >=1.*; extra == 'e'",))})
    assert unmet(["x"], None, installed=old) == [] and unmet(["x[e]"], None, installed=old) == ["x[e]"]


def test_a_python_that_is_too_old_does_not_do() -> None:
    assert unmet([], ">=3.13", installed=HAVE) == ["Python >=3.13"]


def test_a_header_that_cannot_be_parsed_is_refused() -> None:
    with pytest.raises(BadInput, match="header"):
        unmet(["torch=>2"], None, installed=HAVE)


def test_the_interpreter_that_has_everything_is_used_as_it_is(tmp_path: Path) -> None:
    chosen = choose(
        text="print(1)", requirements=["pydantic>=2"], python=None, configured=None, environments=tmp_path
    )
    assert chosen.command == (sys.executable,)


def test_scripts_with_one_header_share_one_environment_and_others_do_not(tmp_path: Path) -> None:
    def entry(text: str) -> str:
        return choose(
            text=text, requirements=["rich==99.0"], python=None, configured=None, environments=tmp_path
        ).command[-1]

    assert entry(SCRIPT) == entry(SCRIPT + "# another body\n")
    assert entry(SCRIPT) != entry(SCRIPT.replace("99.0", "98.0"))
    kept = Path(entry(SCRIPT)).read_text()
    assert kept.startswith(header_of(SCRIPT) or "-") and "hello" not in kept


def test_a_script_runs_in_the_environment_that_uv_makes(tmp_path: Path) -> None:
    """With a header that needs nothing, so that uv needs no network."""
    header = "# /// script\n# dependencies = []\n# ///\n"
    script = tmp_path / "script.py"
    script.write_text(header + "import sys; print('ran with', sys.argv[1:])")
    chosen = choose(
        text=script.read_text(), requirements=["rich==99.0"], python=None, configured=None, environments=tmp_path
    )
    command = [*chosen.command[:2], "--offline", *chosen.command[2:], str(script), "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == "ran with ['--seed', '1']\n", done.stderr


def test_an_interpreter_that_does_not_work_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDependency, match="does not work"):
        installed_in(str(tmp_path / "python"))


def test_only_a_whole_header_is_taken_for_one() -> None:
    assert header_of("print(1)") is None
    assert header_of("# /// script\n# dependencies = []\n") is None
    assert header_of(SCRIPT) == SCRIPT.partition("print")[0].rstrip("\n")
