# From a fresh clone to a moving arm: `make demo`. Every target sets up what it needs, once per change of pyproject.toml.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

# The +cpu build is never the several gigabytes of CUDA. For a GPU: make TORCH=torch
TORCH ?= $(if $(filter Linux,$(shell uname)),torch==2.13.0+cpu,torch==2.13.0)
TORCH_INDEX := https://download.pytorch.org/whl/cpu

# Clients of other projects that the tests ask our server with; without what they pin, such as an old numpy.
PEERS := json-numpy==2.1.1 openpi-client==0.1.2 vla-eval==0.8.0

# Small networks are slower on several threads, and the tests use all cores anyway.
ONE_THREAD := OMP_NUM_THREADS=1

FIND_RENDERER := import ctypes.util as c, sys; sys.exit(sys.platform == "linux" and not any(map(c.find_library, ["EGL", "OSMesa"])))

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check bench clean renderer

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s%s\n", $$1, $$2}' Makefile

demo: renderer $(READY)  ## Watch the bundled policy move the simulated arm, then read its report
	$(BIN)/molmoact2 demo

test: renderer $(READY)  ## Run the tests (under 10 minutes on 2 cores)
	$(ONE_THREAD) $(BIN)/pytest -n auto

test-slow: renderer $(READY)  ## Run the tests that train, record or simulate for long
	$(ONE_THREAD) $(BIN)/pytest -m slow

check: $(READY)  ## Look at formatting, lint and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright

bench: $(READY)  ## Measure how fast a policy is on this machine
	$(BIN)/python -m benchmarks

clean:  ## Remove the virtual environment and every cache
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build dist
	find src tests -name __pycache__ -prune -exec rm -rf {} +

renderer:
	@$(PYTHON) -c '$(FIND_RENDERER)' || { echo "Rendering the simulated arm needs EGL or OSMesa, and this \
	machine has neither. On Debian or Ubuntu: apt-get install libegl1 libgl1-mesa-dri (or libosmesa6)"; exit 1; }

$(READY): pyproject.toml | $(BIN)/python
	@echo "Installing molmoact2 and its tools into .venv (a few minutes, once)"
	$(BIN)/pip install --quiet "$(TORCH)" 2>/dev/null || $(BIN)/pip install --quiet "$(TORCH)" --extra-index-url $(TORCH_INDEX)
	$(BIN)/pip install --quiet --editable ".[dev,sim,train,serve,client]"
	-$(BIN)/pip install --quiet --no-deps $(PEERS)
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv .venv
