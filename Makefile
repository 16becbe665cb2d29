# Two commands on a fresh machine: `make demo` and `make test`. Needs Python 3.11, make and a C compiler.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/installed
JOBS   ?= 4

.PHONY: install demo test packages interop lint format bench fuzz soak clean

install: $(STAMP)

$(STAMP): pyproject.toml $(wildcard plugins/*/pyproject.toml)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	for plugin in $(dir $(wildcard plugins/*/pyproject.toml)); do $(BIN)/python -m pip install --quiet --editable $$plugin || exit 1; done
	touch $@

demo: install
	$(BIN)/mailsec demo

# Debian packages that the tests talk to; tests of what is absent are skipped by name. MAILSEC_APT=0 forbids installing.
packages:
	sh tests/debian-packages

test: install packages
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m 'not interop' -q

interop: install packages
	$(BIN)/python -m pytest -m interop -q

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install packages
	$(BIN)/python tests/bench/run.py --json bench.json

# The mutants of tests/fuzz, N times as many as `make test` looks at.
N ?= 100
fuzz: install
	MAILSEC_FUZZ=$(N) $(BIN)/python -m pytest -n $(JOBS) --timeout 0 -q tests/fuzz

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
