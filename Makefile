# Every command of the project. Needs only Python >= 3.11 with its headers, a C compiler and make; each target makes
# .venv and installs what it needs by itself.
#   PYTHON=python3.13 make test      another interpreter (remove .venv first)
#   TESTFLAGS="-k ring -x" make test extra arguments for pytest

PYTHON ?= python3
TESTFLAGS ?=
export NETCHAN_VECTORS ?= ../shared/vectors
export PIP_DISABLE_PIP_VERSION_CHECK = 1

VENV := .venv
PY := $(VENV)/bin/python
SOURCES := $(shell find netchan/_core netchan/_engine -name '*.pyx' -o -name '*.pxd' -o -name '*.h' -o -name 'k_*.c')
# What uses real time, memory or descriptors of the machine runs alone; the rest shares it between two processes.
SHARED = $(wildcard tests/unit tests/property tests/interop tests/fuzz bench/test_*.py)
ALONE = $(wildcard tests/integration tests/examples)
NO_TEST = 5  # pytest's exit code when TESTFLAGS selects none of one half
STUBBED = $(subst /,.,$(basename $(wildcard netchan/_core/*.pyi netchan/_engine/*.pyi)))
LINTED = $(wildcard netchan tests tools examples bench docs setup.py)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo build debug test lint format docs bench bench-quick fuzz fuzz-coverage fuzz-mutants sanitize long sim handover chaos changes storms kills soak conformance mutants rules wire-names oracle-traces model clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build/.built  ## one session over four paths that are cut and restored, a process replaced; ends with a proof
	@$(PY) examples/demo.py

build: build/.built  ## compile in place (only what has changed)

debug: $(VENV)/.stamp-test  ## compile in place with run-time checks, counters and the nonce check
	@rm -f build/.built
	@NETCHAN_DEBUG=1 $(PY) setup.py -q build_ext --inplace

test: build/.built $(VENV)/.stamp-test  ## unit, property, integration and example tests
	@$(PY) -m pytest -q -n 2 --dist loadfile --session-timeout=600 $(SHARED) $(TESTFLAGS) || test $$? -eq $(NO_TEST)
	@$(PY) -m pytest -q -p no:xdist --session-timeout=900 $(ALONE) $(TESTFLAGS) || test $$? -eq $(NO_TEST)

lint: build/.built $(VENV)/.stamp-lint  ## ruff, mypy and pyright (both strict), cython-lint, and stubs against what was compiled
	@$(VENV)/bin/ruff check $(LINTED)
	@$(VENV)/bin/ruff format --check $(LINTED)
	@PATH="$(VENV)/bin:$$PATH" cython-lint netchan
	@$(VENV)/bin/mypy
	@$(VENV)/bin/basedpyright
	@$(PY) -m mypy.stubtest --mypy-config-file pyproject.toml --concise \
	  --allowlist tools/stubtest-allow.txt $(STUBBED)
	@echo "lint: clean"

format: $(VENV)/.stamp-lint  ## rewrite the Python files in the house layout
	@$(VENV)/bin/ruff check --fix-only -q $(LINTED)
	@$(VENV)/bin/ruff format $(LINTED)

docs: build/.built $(VENV)/.stamp-docs  ## HTML pages in docs/_build/html; a warning is an error
	@$(PY) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs: docs/_build/html/index.html"

bench: build/.built $(VENV)/.stamp-bench  ## end-to-end benchmark, all sizes
	@$(PY) -m bench.e2e

bench-quick: build/.built $(VENV)/.stamp-bench  ## end-to-end benchmark, a minute
	@$(PY) -m bench.e2e --quick

fuzz: $(VENV)/.stamp-base  ## every parser of outside bytes, a minute each (needs clang with libFuzzer)
	@PYTHON=$(abspath $(PY)) tests/fuzz/run.sh 60

fuzz-coverage: $(VENV)/.stamp-test  ## which lines of each parser the stored inputs reach (gcc and gcov; a minute)
	@$(PY) -m tests.fuzz.lines

fuzz-mutants: $(VENV)/.stamp-base  ## bounds checks removed one at a time: a fuzz target must find each (clang; minutes)
	@$(PY) -m tests.fuzz.mutants

sanitize: $(VENV)/.stamp-test  ## unit and property tests under AddressSanitizer and UBSan, then threads under TSan
	@rm -f build/.built
	@NETCHAN_SANITIZE=address,undefined $(PY) setup.py -q build_ext --inplace
	LD_PRELOAD="$$($${CC:-cc} -print-file-name=libasan.so) $$($${CC:-cc} -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
	$(PY) -m pytest -q -p no:xdist $(wildcard tests/unit tests/property) $(TESTFLAGS)
	@PYTHON=$(abspath $(PY)) tests/fuzz/tsan.sh

long: debug  ## ten million seals without a repeated nonce, on a checked build (minutes)
	@$(PY) tests/long/nonce_repeat.py
	@rm -f build/.built

# A test of minutes is not stuck; and a dump of threads that run reads their frames without the lock, and may crash.
UNLIMITED = -q -s -o faulthandler_timeout=0 --timeout=0 --session-timeout=1000000
sim: build/.built $(VENV)/.stamp-test  ## 100 000 seeds of simulated networks, cancellations and lost paths, a million wins of selects (hours)
	NETCHAN_CORE_SIMULATION_SEEDS=100000 NETCHAN_SIMULATION_SEEDS=5000 NETCHAN_CUT_STEP=1 $(PY) -m pytest $(UNLIMITED) \
	  tests/property/test_core_simulation.py tests/property/test_simulation.py tests/property/test_simulation_cut.py $(TESTFLAGS)
	NETCHAN_SEEDS=50 $(PY) -m pytest $(UNLIMITED) tests/integration/test_cancellation.py tests/integration/test_rendezvous.py \
	  tests/integration/test_select.py tests/integration/test_trio.py -k "cancel or select or time" $(TESTFLAGS)
	NETCHAN_RESUME_SEEDS=100000 NETCHAN_PATHS_SEEDS=100000 NETCHAN_DATAGRAM_SEEDS=100000 NETCHAN_SEEDS=50 $(PY) -m pytest $(UNLIMITED) \
	  tests/property/test_core_resume.py tests/property/test_core_paths.py \
	  tests/property/test_core_datagrams.py tests/integration/test_resume.py $(TESTFLAGS)
	NETCHAN_HANDOVER_SEEDS=100000 $(PY) -m pytest $(UNLIMITED) tests/property/test_core_handover.py $(TESTFLAGS)

handover: build/.built $(VENV)/.stamp-test  ## a server with 1 000 sessions, handed over 50 times under load; the pause (minutes)
	NETCHAN_HANDOVER_SESSIONS=1000 NETCHAN_HANDOVER_RESTARTS=50 $(PY) -m pytest -q -s -p no:xdist -o faulthandler_timeout=0 \
	  tests/integration/test_handover_load.py -k tcp $(TESTFLAGS)

chaos: build/.built $(VENV)/.stamp-test  ## real sockets over a link that loses and stalls, between two namespaces (root; half an hour)
	$(PY) -m pytest -q -s -p no:xdist -o faulthandler_timeout=0 --session-timeout=3000 tests/chaos/test_chaos.py tests/chaos/test_interop_runner.py $(TESTFLAGS)

changes: build/.built $(VENV)/.stamp-test  ## links, addresses and routes that come and go between two namespaces (root; 20 minutes)
	$(PY) -m pytest -q -s -p no:xdist -o faulthandler_timeout=0 --session-timeout=1800 tests/chaos/test_changes.py $(TESTFLAGS)

storms: build/.built $(VENV)/.stamp-test  ## a million channels, offers and selects, 10 000 sessions (a quarter of an hour)
	NETCHAN_LONG=1 $(PY) -m pytest -q -s -p no:xdist -o faulthandler_timeout=0 tests/integration/test_storms.py \
	  tests/integration/test_resources.py -k "Million or storm or middle or Flat" $(TESTFLAGS)

kills: build/.built $(VENV)/.stamp-test  ## either process killed under load, five times over each carrier and over several paths (7 minutes)
	NETCHAN_KILLS=5 $(PY) -m pytest -q -s -p no:xdist -o faulthandler_timeout=0 tests/integration/test_kills.py $(TESTFLAGS)

SOAK ?= 600
soak: build/.built $(VENV)/.stamp-test  ## ten minutes of everything that happens to four paths: flat in memory; a day in virtual time; 1 000 peers
	NETCHAN_PEERS=1000 $(PY) -m pytest -q -s -p no:xdist -o faulthandler_timeout=0 tests/integration/test_peers.py $(TESTFLAGS)
	NETCHAN_LONG=1 $(PY) -m pytest -q -s -p no:xdist -o faulthandler_timeout=0 tests/property/test_core_soak.py $(TESTFLAGS)
	$(PY) -m tests.long.soak $(SOAK)

conformance: build/.built $(VENV)/.stamp-test  ## a table of each case of a channel on each pair of ends and each front
	@$(PY) -m tests.conformance

mutants: build/.built $(VENV)/.stamp-test  ## faults put into the channel layer one at a time: each must turn a case red
	@$(PY) -m tests.mutants

rules: $(VENV)/.stamp-test  ## each rule of the public contract with the tests that prove it
	@$(PY) -m tests.rules

wire-names: $(VENV)/.stamp-test  ## each frame and each code of the wire with the tests that name it
	@$(PY) -m tests.wire_names

oracle-traces:  ## make the expected traces of tests/interop/oracle again (needs Go; a minute)
	@cd tests/interop/oracle/go && go run . -scripts ../scripts -traces ../traces

model: $(VENV)/.stamp-test  ## explore the states of the protocol model in docs/spec
	@$(PY) docs/spec/model.py

clean:  ## remove everything that was built, and .venv
	@rm -rf $(VENV) build dist *.egg-info docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find netchan \( -name '*.so' -o -name '*.html' \) -delete
	@find netchan/_core netchan/_engine -name '*.c' ! -name 'k_*.c' -delete
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---------------------------------------------------------------------------------------------- how it gets there
build/.built: $(SOURCES) setup.py $(VENV)/.stamp-base
	@echo "building the compiled modules ..."
	@$(PY) setup.py -q build_ext --inplace
	@mkdir -p build && touch $@

$(VENV)/.stamp-base: pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "netchan needs Python 3.11 or newer; say which: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "this Python cannot make a virtual environment; on Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "installing what netchan needs into $(VENV) ..."
	@$(PY) -m pip install -q -U 'pip>=25.1'
	@$(PY) -m pip install -q --group build
	@NETCHAN_BUILD_EXT=0 PYTHONWARNINGS=ignore $(PY) -m pip install -q --no-build-isolation -e .
	@touch $@

$(VENV)/.stamp-%: $(VENV)/.stamp-base
	@echo "installing the group '$*' into $(VENV) ..."
	@$(PY) -m pip install -q --group $*
	@touch $@

# mypy reads the types of what the tests install, too.
$(VENV)/.stamp-lint: $(VENV)/.stamp-test
