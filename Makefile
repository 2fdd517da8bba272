# omero-archive: `make demo` shows it, `make test` tests it. Needs Python 3.11 or newer and make, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
SECONDS ?= 600
FLIPS ?= 300

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint check format bench bench-scale crash-matrix torture flips reference clean

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

setup: $(VENV)/dev.stamp ## make .venv with all that development needs

demo: $(VENV)/demo.stamp ## tell the whole story on a small OMERO of its own; ARGS="--dir D --keep"
	$(BIN)/omero-archive demo $(ARGS)

test: $(VENV)/dev.stamp ## run all tests; ARGS="tests/unit -k permit"
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal $(ARGS)

lint: $(VENV)/dev.stamp ## format, ruff, types and layers are in order
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test ## all that must pass before a change goes in

format: $(VENV)/dev.stamp ## format, and repair what ruff can repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

torture: $(VENV)/dev.stamp ## kill -9 for SECONDS=600 (SEED= as printed before), then random lives for as long
	PYTHONPATH=tests $(BIN)/python -m torture --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))
	OMERO_ARCHIVE_TORTURE_SECONDS=$(SECONDS) $(BIN)/python -m pytest -q tests/property/test_random_commands.py

flips: $(VENV)/dev.stamp ## evict and recall FLIPS=300 times under programs that read through a mount; wants root
	OMERO_ARCHIVE_REQUIRE_TOOLS=1 OMERO_ARCHIVE_FLIPS=$(FLIPS) \
		$(BIN)/python -m pytest -q -s tests/access/test_mount_flips.py $(ARGS)

bench: $(VENV)/dev.stamp ## measure against rsync, rclone and cp; writes build/bench.json
	$(BIN)/python -m bench $(ARGS)

bench-scale: $(VENV)/dev.stamp ## measure 10^3 to 10^6 originals; writes docs/explanation/at-scale*; ARGS="--sizes 1000,10000"
	$(BIN)/python -m bench.scale $(ARGS)

crash-matrix: $(VENV)/dev.stamp ## stop and fail everywhere; writes docs/reference/crash-matrix.md; ARGS="--minutes 15"
	$(BIN)/python tests/crash/crash_page.py $(ARGS)

reference: $(VENV)/dev.stamp ## write docs/reference/commands.md anew from the command line
	$(BIN)/python docs/generate_reference.py

clean: ## remove what was built; .venv stays
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# The stamps are older than the lock or than pyproject.toml when something has to be installed again.
$(VENV)/demo.stamp: requirements/demo.lock requirements/install pyproject.toml
	requirements/install "$(PYTHON)" $(VENV) requirements/demo.lock
	@touch $@

$(VENV)/dev.stamp: requirements/dev.lock requirements/install pyproject.toml
	requirements/install "$(PYTHON)" $(VENV) requirements/dev.lock
	@touch $@ $(VENV)/demo.stamp
