# make demo, make test: the two commands of the README. make help lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO := demo
# The tests of a file share what is made for them, so they run in one process; the longest files come first.
BY_FILE := --dist loadfile --no-loadscope-reorder

.PHONY: help demo test exhaustive quick lint types bench docs container-test locks lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

# pip's own notes about index pages that lack a package would bury what matters.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hedypet needs Python 3.11 or newer; set PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(INSTALLED) ## write a phantom dataset and run both levels on it
	rm -rf $(DEMO)
	$(BIN)/hedypet-phantom $(DEMO)/bids --participants 2 --size tiny --seed 1
	$(BIN)/python run.py $(DEMO)/bids $(DEMO)/derivatives participant
	$(BIN)/python run.py $(DEMO)/bids $(DEMO)/derivatives group
	@echo "Reports: $(DEMO)/derivatives/sub-001.html, $(DEMO)/derivatives/group.html"
	@echo "Tables:  $(DEMO)/derivatives/readouts/"

test: $(INSTALLED) ## run the tests
	$(BIN)/python -m pytest -n auto $(BY_FILE) --timeout 900 --durations 20 -m "not exhaustive"

exhaustive: $(INSTALLED) ## run the tests that take every case, half an hour
	$(BIN)/python -m pytest -n auto $(BY_FILE) --timeout 1800 --durations 20 -m exhaustive

quick: $(INSTALLED) ## run the tests that take seconds
	$(BIN)/python -m pytest -n auto $(BY_FILE) --timeout 300 -m "not slow and not exhaustive"

lint: $(INSTALLED) ## ruff and the layers of the design
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	if command -v shellcheck >/dev/null; then shellcheck .ci/run deploy/*.sh deploy/slurm/*.s* deploy/brainlife/main scripts/*.sh; fi

types: $(INSTALLED) ## mypy, strict on the package
	$(BIN)/mypy

bench: $(INSTALLED) ## run every benchmark
	for name in tacs maps patlak compartments peers resample registration segmentation group report; do \
	  echo "== $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; \
	done

docs: $(INSTALLED) ## build the documentation into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

container-test: $(INSTALLED) ## build the image without Docker and run it; root on Debian 12, 15 minutes
	scripts/container_test.sh

locks: $(INSTALLED) ## write the packages of the image with their hashes to deploy/locks
	scripts/lock.sh

lock: $(INSTALLED) ## write the exact versions of this environment to constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt

clean: ## remove the environment and the demo
	rm -rf $(VENV) $(DEMO)
