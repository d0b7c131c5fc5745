# One command for a person, a hook and CI. `make` alone lists what there is.
#
# Everything goes into .venv. Its stamp depends on what says what belongs in it, so that a second
# run is instant and a changed pin is installed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)

# pyright's wrapper asks the package index for news at each run, unless told not to
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: help
help: ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

.PHONY: setup
setup: $(READY) ## install everything into .venv (PYTHON=… names an interpreter)

.PHONY: demo
demo: $(READY) ## audit the standard library, or PATH_TO_AUDIT=… (under two minutes)
	@$(BIN)/python -m examples.demo

.PHONY: test
test: $(READY) ## run the tests on all cores; ARGS=… goes to pytest
	@$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

.PHONY: check
check: $(READY) ## lint, format, types, imports
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy --strict -p kapelle
	@$(BIN)/pyright
	@$(BIN)/lint-imports --no-logo

.PHONY: format
format: $(READY) ## format, and mend what can be mended safely
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

.PHONY: soak
soak: $(READY) ## run the tests that take minutes
	@$(BIN)/python -m pytest -m soak $(ARGS)

.PHONY: bench
bench: $(READY) ## run the benchmarks
	@for benchmark in benchmarks/*.py; do echo "── $$benchmark"; $(BIN)/python "$$benchmark"; done

# langchain-core 1.8 needs a newer certifi than can be had everywhere yet
.PHONY: constraints
constraints: ## pin again, to the newest that fit together on the oldest Python
	@rm -rf .venv-pins
	@$(call make-venv,.venv-pins,python3.11 $(PYTHONS))
	@.venv-pins/bin/python -m pip install -qq --upgrade pip
	@.venv-pins/bin/python -m pip install -qq -e '.[dev]' 'langchain-core<1.8'
	@{ echo '# What `make setup` installs. Made by `make constraints`; not by hand.'; \
	   .venv-pins/bin/python -m pip freeze --all --exclude-editable; } > constraints.txt
	@rm -rf .venv-pins

.PHONY: clean
clean: ## remove .venv and what the tools left behind
	@rm -rf $(VENV) .venv-pins build dist *.egg-info .coverage
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@[ -x $(BIN)/python ] || { $(call make-venv,$(VENV),$(PYTHONS)); }
	@echo "Installing into $(VENV) …"
	@$(BIN)/python -m pip install -qq -c constraints.txt pip setuptools
	@$(BIN)/python -m pip install -qq -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

# $(call make-venv,FOLDER,CANDIDATES): a venv by the first candidate that is new enough
define make-venv
for python in $(2); do \
  if "$$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
    exec "$$python" -m venv --clear $(1); \
  fi; \
done; \
echo "Kapelle needs Python 3.11 or newer with its venv module; found none as: $(2). Name one with PYTHON=…" >&2; \
exit 1
endef
