# Each target sets up what it needs. The set-up runs again only if the requirements changed.
comma := ,
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS ?= dev
READY := $(VENV)/.ready-$(subst $(comma),-,$(EXTRAS))
CONFIG ?= configs/beta_vae.py
WORKDIR ?= runs/$(RUN)
RUN = $(basename $(notdir $(firstword $(subst :, ,$(CONFIG)))))
POD_WORKDIR = $(if $(filter file,$(origin WORKDIR)),$(WORKDIR)_pod,$(WORKDIR))
HOSTS ?= 4
DEVICES ?= 1
PROCESSES ?= 1
CHAOS ?=
ARGS ?=
RUNS ?= runs

.DEFAULT_GOAL := help
.PHONY: help setup train pod chaos bench bench-peers bench-gpu scaling test test-quick test-targets compilers check tensorboard clean

help:  ## List the targets.
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / { printf "  %-14s%s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo '  make train CONFIG=configs/vq_vae.py WORKDIR=runs/vq ARGS=--config.seed=1'
	@echo '  make bench-peers ARGS=--help'

setup: $(READY)  ## Set up the environment with EXTRAS: dev, cuda13, tpu; other targets do, too.

train: $(READY)  ## Train CONFIG into WORKDIR, or resume the run there.
	$(BIN)/python -m pipeline.train --config=$(CONFIG) --workdir=$(WORKDIR) $(ARGS)

pod: $(READY)  ## Train on HOSTS local processes into WORKDIR or RUN_pod; CHAOS=1 kills some.
	$(BIN)/python launch/local.py --processes=$(HOSTS) --devices=$(DEVICES) \
		$(if $(filter-out 0,$(CHAOS)),--chaos-seconds=30) -- --config=$(CONFIG) --workdir=$(POD_WORKDIR) $(ARGS)

chaos: $(READY)  ## Hurt runs of all variants in many ways, and compare them with unhurt runs.
	JAX_PLATFORMS=cpu $(BIN)/python -m tests.support.chaos $(ARGS)

bench: $(READY)  ## Measure what a step of CONFIG costs here, and what the loop adds to it.
	$(BIN)/python -m pipeline.benchmark --config=$(CONFIG) $(ARGS)

bench-peers: $(VENV)/.ready-bench  ## Time the same work in other frameworks; PROCESSES=2 beside DDP.
	$(BIN)/python -m pipeline.performance.frameworks.compare --processes=$(PROCESSES) $(ARGS)

bench-gpu:  ## Take all figures of a GPU node in ten minutes, after a set-up with EXTRAS,cuda13.
	@$(MAKE) --no-print-directory EXTRAS=$(EXTRAS)$(comma)cuda13 $(VENV)/.ready-bench
	$(BIN)/python -m pipeline.performance.frameworks.gpu_node --out=$(RUNS)/gpu $(ARGS)

scaling: compilers  ## Plan all variants for pods and GPU nodes, and rewrite the table of how they scale.
	$(VENV)-plan/bin/python -m pipeline.performance.scaling

test-targets: compilers  ## Run the tests that compile for TPUs and GPUs; `make test` skips them.
	$(VENV)-plan/bin/python -m pytest -m "tpu or gpu" tests/performance/test_plan_targets.py $(ARGS)

# The compilers have an environment of their own. If they are installed, JAX searches for their
# devices at each start, and prints long warnings when it finds none.
compilers:  ## Build a second environment, with the compilers for TPUs and GPUs.
	@$(MAKE) --no-print-directory VENV=$(VENV)-plan EXTRAS=$(EXTRAS),plan-tpu,plan-gpu setup

# A file's tests run in one process, so that what they share is made once.
test: $(READY)  ## Run the tests in as many processes as there are cores; ARGS="-n 0" in one.
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

test-quick: $(READY)  ## Run the tests of the rooms that differ from the last commit, and quick ones.
	$(BIN)/python -m pytest -n auto --quick $(ARGS)

check: $(READY)  ## Check format, style, types and the import contract.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

tensorboard: $(READY)  ## Show all runs in TensorBoard, by their names, the main figures first.
	$(BIN)/python -m pipeline.display.board $(RUNS) $(ARGS)

clean:  ## Remove the environments and all caches.
	rm -rf $(VENV) $(VENV)-plan build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

# Changed requirements make a new environment. Other EXTRAS are added to the one that is there.
$(READY): $(VENV)/.made
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

$(VENV)/.made: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"error: Python 3.11 or later is needed, {sys.executable} is {v[0]}.{v[1]}: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# The frameworks go into the same environment. On Linux PyPI's torch brings CUDA's libraries; set
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu for a torch without them.
$(VENV)/.ready-bench: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS),bench]'
	@touch $@
