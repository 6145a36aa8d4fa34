# One command each: `make quickstart`, `make test`, `make bench`. Nothing here needs more than Python and pip.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
PIP_ARGS ?=
# Each pytest process keeps to one thread: more threads than cores is far slower than one.
THREADS ?= 1

BIN := $(VENV)/bin
DEFINED := pyproject.toml constraints.txt
RUN := OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m

.PHONY: install quickstart test test-all bench docs lint clean

install: $(VENV)/.installed-train

quickstart: install
	$(BIN)/strop quickstart

test: lint
	$(RUN) pytest -n 2

test-all: lint
	$(RUN) pytest -n 2 -m ''

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/side_by_side.py

# What of docs/ is made from the code: tables of settings, the reference of names.
docs: install
	$(RUN) tools.docs

clean:
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache src/*.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# A stamp an extra: installed again only when what defines it changes.
$(VENV)/.installed-%: $(DEFINED) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[$*]'
	@touch $@

.PRECIOUS: $(VENV)/.installed-%
