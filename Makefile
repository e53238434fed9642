# Each target sets up what it needs; the set-up is repeated only when the requirements changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS ?= dev
CONFIG ?= configs/beta_vae.py
WORKDIR ?= runs/$(basename $(notdir $(firstword $(subst :, ,$(CONFIG)))))
HOSTS ?= 4
DEVICES ?= 1
CHAOS ?=
ARGS ?=

.PHONY: train pod chaos bench bench-peers scaling test test-targets compilers check tensorboard clean

train: $(READY)
	$(BIN)/python -m pipeline.train --config=$(CONFIG) --workdir=$(WORKDIR) $(ARGS)

# A pod on this machine: HOSTS processes with DEVICES virtual devices each. CHAOS=1 kills some.
pod: $(READY)
	$(BIN)/python launch/local.py --processes=$(HOSTS) --devices=$(DEVICES) \
		$(if $(filter-out 0,$(CHAOS)),--chaos-seconds=30) -- --config=$(CONFIG) --workdir=$(WORKDIR) $(ARGS)

# Runs of all variants are hurt 50 times, and compared with runs that were not.
chaos: $(READY)
	JAX_PLATFORMS=cpu $(BIN)/python -m tests.support.chaos $(ARGS)

# What a step costs here, and what the loop adds to it: make bench CONFIG=configs/vq_vae.py
bench: $(READY)
	$(BIN)/python -m pipeline.benchmark --config=$(CONFIG) $(ARGS)

# The same work in other frameworks, which it installs: make bench-peers ARGS=--work=conv_beta_vae
bench-peers: $(VENV)/.ready-bench
	$(BIN)/python -m pipeline.performance.frameworks.compare $(ARGS)

# Compiles every variant for pods and GPU nodes, and rewrites the README's table of how they scale.
scaling: compilers
	$(VENV)-plan/bin/python -m pipeline.performance.scaling

# The tests that compile for TPUs and GPUs; `make test` skips them.
test-targets: compilers
	$(VENV)-plan/bin/python -m pytest -m "tpu or gpu" tests/performance/test_plan_targets.py $(ARGS)

# An environment of its own: where the compilers are installed, JAX looks for their devices at each
# start, and complains at length that there are none.
compilers:
	@$(MAKE) --no-print-directory VENV=$(VENV)-plan EXTRAS=$(EXTRAS),plan-tpu,plan-gpu $(VENV)-plan/.ready

test: $(READY)
	$(BIN)/python -m pytest $(ARGS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

tensorboard: $(READY)
	$(BIN)/tensorboard --logdir runs

clean:
	rm -rf $(VENV) $(VENV)-plan build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"error: Python 3.11 or later is needed, {sys.executable} is {v[0]}.{v[1]}: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

# Added to the same environment. On Linux PyPI's torch brings CUDA's libraries; one without them comes
# with PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu.
$(VENV)/.ready-bench: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS),bench]'
	@touch $@
