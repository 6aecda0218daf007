# The two commands of the README, and nothing clever. Everything it needs is set up by
# ci/bootstrap.py, which costs nothing when it is there already.
#
# A failing recipe makes `make` itself exit 2; the recipe's own code (README, "Exit codes") is in
# make's last line, "Error N". `.venv/bin/rig VERB` gives the code itself.

PYTHON ?= python3
RIG := .venv/bin/rig
PY := .venv/bin/python
ARGS ?=
WHAT ?= spine

.PHONY: help boot-and-test test quick accept setup lock
.NOTPARALLEL:

help:
	@echo 'make boot-and-test   set up, build the default kernel, boot it, run every guest suite'
	@echo 'make test            set up, then the tests of the tool, real kernel included'
	@echo 'make quick           set up, then lint, types and the tests that need no kernel'
	@echo 'make accept WHAT=spine  measure a must-hold list (spine, loop, handover, series, bench, verdicts, hardware, nightly), write ci/acceptance/'
	@echo 'make setup           set up only; make lock: resolve requirements.lock anew'
	@echo 'ARGS="..." is handed on to rig boot-and-test and to pytest'

# What only the rig's own tests need is set up for them alone.
test quick accept: export RIG_SETUP = tests

setup:
	@$(PYTHON) ci/bootstrap.py

boot-and-test: setup
	@$(RIG) boot-and-test $(ARGS)

test: setup
	@$(PY) -m pytest $(ARGS)

quick: setup
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) -m mypy --strict ci/*.py
	@$(PY) -m pytest -q -m 'not kernel and not board and not slow' $(ARGS)

accept: setup
	@$(PY) ci/accept_$(WHAT).py $(ARGS)

lock:
	@python3 ci/lock.py
