"""The import block of a script holds what its code uses, in ruff's order; ours stays light."""

from __future__ import annotations

import json
import subprocess
import sys

from mlintern.tools.scripts.imports import import_block, names_used

HEAVY = {"torch", "trl", "transformers", "datasets", "huggingface_hub", "jinja2", "packaging", "pandas", "pyarrow"}


def test_only_what_the_code_uses_is_imported() -> None:
    assert import_block(names_used("print(json.dumps(1))"), []) == "import json"
    assert import_block(names_used("x = 1"), []) == ""


def test_imports_of_snippets_are_merged_and_sorted() -> None:
    block = import_block(
        names_used("json.dumps(set_seed(load_dataset))"),
        ["import zlib", "from transformers import AutoConfig, pipeline", "import numpy as np", "import json"],
    )
    assert block.splitlines() == [
        "import json",
        "import zlib",
        "",
        "import numpy as np",
        "from datasets import load_dataset",
        "from transformers import AutoConfig, pipeline, set_seed",
    ]


def test_a_long_import_stands_on_several_lines() -> None:
    names = [f"name_number_{number}" for number in range(9)]
    block = import_block((), [f"from somewhere import {', '.join(names)}"])
    assert block.splitlines()[0] == "from somewhere import (" and len(block.splitlines()) == 11


def test_the_room_loads_nothing_heavy_until_it_is_used() -> None:
    code = (
        "import json, sys; import mlintern.tools.scripts.store, mlintern.tools.scripts.describe;"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert not HEAVY & set(json.loads(done.stdout))
