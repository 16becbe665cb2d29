# Two commands on a fresh machine: `make demo` and `make test`. Needs Python 3.11, make and a C compiler. `make help` lists the rest.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/installed
JOBS   ?= 4
PLUGINS := $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml))
SPACE  := $(subst ,, )

.PHONY: help install demo test packages interop lint format bench soak fuzz clean
.DEFAULT_GOAL := install

help:            ## what there is (the default is install)
	@sed -n 's/^\([a-z]*\):.*## */  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

install: $(STAMP)  ## .venv with mailsec, its plugins and the development tools

$(STAMP): pyproject.toml $(addsuffix /pyproject.toml,$(PLUGINS))
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet $(addprefix --editable ./,$(PLUGINS))
	touch $@

demo: install  ## the main job end to end, on this machine
	$(BIN)/mailsec demo

# Debian packages that the tests talk to; tests of what is absent are skipped by name. MAILSEC_APT=0 forbids installing.
packages:  ## the Debian packages that the tests talk to (MAILSEC_APT=0 only prints the line)
	sh tests/debian-packages

test: install packages  ## everything but slow peers
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m 'not interop' -q

interop: install packages  ## slow peers: NSS, gpgsm, Bouncy Castle; and many kills at random instants
	$(BIN)/python -m pytest -m interop -q
	MAILSEC_KILL_ROUNDS=40 $(BIN)/python -m pytest -q tests/faults/test_kill.py -k random

lint: install  ## ruff, mypy --strict, the layer contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=$(subst $(SPACE),:,$(PLUGINS)) $(BIN)/mypy --package mailsec $(addprefix --package ,$(notdir $(patsubst %/__init__.py,%,$(wildcard plugins/*/mailsec_*/__init__.py))))
	$(BIN)/lint-imports --no-cache

format: install  ## let ruff put the source in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install packages  ## speed, beside Postfix with and without openssl; writes bench.json
	$(BIN)/python tests/bench/run.py --json bench.json

# MESSAGES=20000 for a short one.
MESSAGES ?= 1000000
soak: install packages  ## MESSAGES (a million) through a running gateway: none lost, no memory grown
	$(BIN)/python tests/bench/soak.py --messages $(MESSAGES)

# The mutants of tests/fuzz, N times as many as `make test` looks at; then atheris, SECONDS for each target. What it finds lies in tests/fuzz/found.
N ?= 20
SECONDS ?= 300
fuzz: install  ## mutants (N times as many as in the tests), then atheris (SECONDS for each target)
	MAILSEC_FUZZ=$(N) $(BIN)/python -m pytest -n $(JOBS) --timeout 0 -q tests/fuzz
	for target in asn1 cms mime unprotect; do $(BIN)/python -m tests.fuzz.explore $$target --seconds $(SECONDS) || exit 1; done

clean:  ## remove what the others made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
