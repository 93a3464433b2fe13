# What a person does here, from an empty machine: Python 3.11 with pip, and make. `make` alone lists it.
.DEFAULT_GOAL := help
.PHONY: help setup demo test long hosts lint types bench chaos docs

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.motet-installed
# The first interpreter that is 3.11; `make setup PYTHON=/path/to/python3.11` names another.
PYTHON ?= $(shell for p in python3.11 python3 python; do $$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $$p && break; done)

help:  ## list what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup: $(STAMP)  ## install motet and its tools into .venv, exactly as constraints.txt pins them

demo: $(STAMP)  ## four simulated companies train one model, from raw tables to a registered model (~2 min)
	$(BIN)/motet run

test: $(STAMP)  ## all tests but the long ones, two at a time
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --hypothesis-seed=0 -m 'not long'

long: $(STAMP)  ## the long tests: phases and search, five hosts, a partner that never comes back (a quarter of an hour)
	$(BIN)/python -m pytest -m long

hosts: $(STAMP)  ## five hosts with cables and firewalls of their own train on ChEMBL (root, Debian's packages; minutes)
	$(BIN)/python -m pytest tests/hosts

lint: $(STAMP)  ## style, import rule, dependencies, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/codespell

types: $(STAMP)  ## mypy, strict
	$(BIN)/mypy

bench: $(STAMP)  ## list the benchmarks; `make bench NAME=contracts` runs one
	@$(if $(NAME),OMP_NUM_THREADS=1 $(BIN)/python benchmarks/$(NAME).py,for b in benchmarks/*.py; do echo "make bench NAME=$$(basename $$b .py)	$$(head -1 $$b | tr -d '"')"; done)

chaos: $(STAMP)  ## forty consortium runs with kills, cuts, full disks and moved clocks (about half an hour)
	$(BIN)/python -m tests.chaos.campaign --seeds 40

docs: $(STAMP)  ## write the reference of contracts, commands and modules to build/docs
	$(BIN)/python docs/reference.py build/docs

# Depends on what decides the installation, so a second `make` does nothing. Where Python comes without its
# own pip for new environments (Debian's), the machine's pip installs one.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "motet needs Python 3.11: install python3.11 with venv and pip, or name it: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 \
	|| { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; } \
	|| { echo "Python 3.11 is here without pip: install python3-pip or python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
