# make search     install, draw the synthetic dataset and search on it through Prefect
# make test       install what is missing and run the whole suite
# make litert     install the converter of nas export --format litert, about 7 GB
# make test-fast  the suite without the tests that are marked slow
# make test-core  the tests of the library alone, which start no server
# make lint       ruff, mypy, and whether the links of the documents lead somewhere
# make docs       build the documents as a site in build/docs
# make down       end the servers that make search or nas up started
# make audit      ask whether a pinned package has a known hole (it asks PyPI, for about a minute)
# make licences   write docs/licences.md anew, from the packages as they are installed
# make clean      remove the virtual environments

PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
# Four processes, a file in one of them: most tests wait for others that they start.
PYTEST := $(VENV)/bin/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder
# Tools that look at the packages, apart from them: they need others themselves.
TOOLS := .venv-tools
INSTALLED_TOOLS := $(TOOLS)/.installed
# LiteRT's converter does not install beside the other packages either.
LITERT := .litert
INSTALLED_LITERT := $(LITERT)/.installed

.PHONY: install litert search test test-fast test-core lint docs audit licences down clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

litert: $(INSTALLED_LITERT)

$(INSTALLED_LITERT): deploy/litert-constraints.txt
	$(PYTHON) -m venv $(LITERT)
	$(LITERT)/bin/pip --disable-pip-version-check install --quiet \
		--constraint deploy/litert-constraints.txt litert-torch
	@touch $@

search: $(INSTALLED)
	$(VENV)/bin/nas up
	$(VENV)/bin/nas run nas-search/synthetic

test: $(INSTALLED_DEV)
	$(PYTEST)

test-fast: $(INSTALLED_DEV)
	$(PYTEST) -m "not slow"

test-core: $(INSTALLED_DEV)
	$(PYTEST) tests/nas_core

lint: $(INSTALLED_DEV) docs
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# Quiet about the next major version of mkdocs, of which nothing is used here.
docs: export NO_MKDOCS_2_WARNING = 1
docs: $(INSTALLED_DEV)
	$(VENV)/bin/mkdocs build --strict
	@echo 'The documents are at build/docs/index.html'

$(INSTALLED_TOOLS):
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip --disable-pip-version-check install --quiet 'pip-audit>=2.9' 'pip-licenses>=5'
	@touch $@

# Strict: a package of which nothing could be learned is an error.
audit: $(INSTALLED_TOOLS)
	@$(TOOLS)/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt || { \
		echo 'Not passed. A table above lists packages with holes: raise them in constraints.txt.' \
		'Else the last line above says why nothing was learned: https://pypi.org/pypi must answer.' >&2; \
		exit 1; }

licences: $(INSTALLED_TOOLS) $(INSTALLED_DEV)
	printf '%s\n' '# Licences of the dependencies' '' \
		'Written by `make licences`, from what the packages of constraints.txt say of themselves.' \
		'What is not permissive stands in [security.md](security.md#licences).' '' > docs/licences.md
	$(TOOLS)/bin/pip-licenses --python=$(VENV)/bin/python --with-system --format=markdown \
		--packages $$(sed 's/==.*//' constraints.txt) | sed 's/   *|/ |/g; s/---*/---/g' >> docs/licences.md

down:
	$(VENV)/bin/nas down

clean:
	rm -rf $(VENV) $(TOOLS) $(LITERT)
