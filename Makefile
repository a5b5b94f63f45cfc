# The verbs of this project, the same for people and CI. Each does its own set-up, so on a fresh machine
# with Python and make any of them can be the first; PYTHON chooses the interpreter the environment is made of.

PYTHON ?= python3
# Two workers: florlog is developed on two cores. ARGS goes to the tool that a verb runs, for example
# make test ARGS='-k resume' or make crash ARGS='--every 10', which tries every tenth fault only.
JOBS ?= 2
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Two test processes with two threads each spin for the same two cores: ten times slower than one thread each.
test crash programs docs: export OMP_NUM_THREADS ?= 1

# The tests start thousands of processes: with this set, each of them would compile all of florlog for itself.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test lint types crash cases programs flips fuzz bench docs docs-update nox clean

help:
	@echo 'make demo    record, kill, resume and ask afterwards: a guided tour in under two minutes'
	@echo 'make test    lint, types and the test suite'
	@echo 'make lint    ruff: rules and formatting'
	@echo 'make types   mypy --strict over the packages and what the tests build on'
	@echo 'make crash   kill writers at random instants, check what is left'
	@echo 'make programs   2,000 random programs: recorded, killed, resumed, asked (an hour and a half)'
	@echo 'make cases   the tests with every case of those that draw some of theirs (an hour)'
	@echo 'make flips   flip every bit of two small stores, read them each time (three quarters of an hour)'
	@echo 'make fuzz    the decoders, led by coverage (atheris); make fuzz ARGS="--seconds 600"'
	@echo 'make bench   the benchmarks'
	@echo 'make docs    check the documentation: links, help of the commands, every block of code'
	@echo 'make docs-update   write the help of the commands into their pages'
	@echo 'make nox     the checks on each Python of 3.11, 3.12 and 3.13 that is installed'
	@echo 'make clean   remove what the other verbs made'

# The stamp is written last: an interrupted set-up starts over, a changed pin sets up again.
# Nothing is compiled by pip: most of these packages' modules are never imported, and compiling all takes minutes.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo 'make: no $(PYTHON) here; install Python 3.11 or newer' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: florlog needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1);" \
	    "try make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo 'make: $(PYTHON) cannot make virtual environments; on Debian: apt install python3-venv' >&2; exit 1; }
	@echo 'setting up $(VENV): PyTorch is large, this takes a minute or more the first time'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/python examples/demo.py

test: lint types
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache

types: $(STAMP)
	$(BIN)/mypy

crash: $(STAMP)
	$(BIN)/python -m tests.wal.crash $(ARGS)
	$(BIN)/python -m tests.wal.crash_runs
	$(BIN)/python -m tests.end_to_end.endings --rounds 2000
	$(BIN)/python -m tests.recording.interruptions
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --all-cases -m 'crash or long'

cases: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --all-cases $(ARGS)

programs: $(STAMP)
	$(BIN)/python -m tests.end_to_end.random_programs --programs 2000 $(ARGS)

flips: $(STAMP)
	$(BIN)/python -m tests.wal.flips $(ARGS)

fuzz: $(STAMP)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check 'atheris>=2.3'
	$(BIN)/python -m tests.wal.fuzz --atheris $(ARGS)

bench: $(STAMP)
	@set -e; for script in benchmarks/[!_]*.py; do \
	  [ -e "$$script" ] || { echo 'no benchmarks yet'; exit 0; }; \
	  echo "== $$script"; $(BIN)/python "$$script"; done

docs: $(STAMP)
	$(BIN)/cog --check --diff --verbosity 1 -e -I docs docs/commands/*.md
	$(BIN)/python -m pytest tests/test_docs.py tests/inspect/test_tutorial.py tests/wal/test_readme.py $(ARGS)

docs-update: $(STAMP)
	$(BIN)/cog -r --verbosity 1 -e -I docs docs/commands/*.md

nox: $(STAMP)
	$(BIN)/nox $(ARGS)

clean:
	rm -rf $(VENV) .nox .demo dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
