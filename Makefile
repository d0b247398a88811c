# The whole set-up is one target: everything else depends on it and runs it when needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help demo test check bench clean

help:
	@echo "make demo   environment, install, then the default study; prints where its report is"
	@echo "make test   environment, install, then the test suite"
	@echo "make check  formatting, lint and types"
	@echo "make bench  the benchmarks; their results are committed"
	@echo "make clean  remove the environment and what runs left behind"

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/trueup study configs/study-demo.yaml --out runs/demo

test: $(INSTALLED)
	$(BIN)/python -m pytest

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

bench: $(INSTALLED)
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/study_seconds.py

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache .hypothesis build trueup.egg-info
