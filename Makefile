# make search    install, draw the synthetic dataset and search on it through Prefect
# make test      install what is missing and run the whole suite
# make test-fast  the suite without the tests that are marked slow
# make lint      ruff and mypy
# make down      end the servers that make search or nas up started
# make clean     remove the virtual environment

PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

.PHONY: install search test test-fast lint down clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

search: $(INSTALLED)
	$(VENV)/bin/nas up
	$(VENV)/bin/nas run nas-search/synthetic

test: $(INSTALLED_DEV)
	$(VENV)/bin/python -m pytest

test-fast: $(INSTALLED_DEV)
	$(VENV)/bin/python -m pytest -m "not slow"

lint: $(INSTALLED_DEV)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

down:
	$(VENV)/bin/nas down

clean:
	rm -rf $(VENV)
