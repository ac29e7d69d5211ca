# Every target sets up what it needs from nothing but Python 3.11.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Each shop has a home of its own: RETAILER=atelier lives in .continuum-atelier.
export CONTINUUM_HOME ?= $(CURDIR)/.continuum$(if $(RETAILER),-$(basename $(notdir $(RETAILER))))
export DAGSTER_DISABLE_TELEMETRY := 1
export MLFLOW_DISABLE_TELEMETRY := true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION := false
export GIT_PYTHON_REFRESH := quiet

.DEFAULT_GOAL := help
.PHONY: help setup run test test-full lint screenshots docs clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "Python 3.11 is needed; set PYTHON=/path/to/python3.11"; exit 2; }
	@echo "Installing into $(VENV) (a few minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(VENV)/.ready ## install everything into .venv

run: setup ## the main job, then the services: Dagster, MLflow, Feast and the live server
	@$(BIN)/continuum up

test: setup lint ## unit, integration and end-to-end tests (about 15 minutes)
	@$(BIN)/continuum doctor --install-browser
	@$(BIN)/python -m pytest -m "not full"

test-full: setup lint ## everything, long proofs included
	@$(BIN)/continuum doctor --install-browser
	@$(BIN)/python -m pytest

lint: setup ## ruff, mypy and the import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

docs: setup ## render docs/benchmarks.md from the kept runs
	@$(BIN)/continuum bench --render

screenshots: setup ## take the README's pictures from the running services
	@$(BIN)/python -m tests.screenshots

clean: ## remove the environment and all state
	rm -rf $(VENV) $(CONTINUUM_HOME)
