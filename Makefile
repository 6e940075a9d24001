# One command each. Everything runs in .venv, which `make setup` builds from the locked environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Processes that share the fast tests.
JOBS ?= 2
READY := $(VENV)/.ready

.PHONY: demo setup test test-all lint format bench reliability clean

demo: $(READY)  ## label the sample photographs with the shipped nano models, offline
	$(BIN)/autolabel demo

setup: $(READY)  ## build the development environment

$(READY): requirements/development.lock requirements/sam2.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/development.lock
	SAM2_BUILD_CUDA=0 $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-build-isolation --no-deps -r requirements/sam2.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $@

test: $(READY)  ## the fast tests: no GPU, no network, no downloaded weights
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m "not slow and not gpu" tests

test-all: test  ## everything, GPU tests where there is a GPU; the slow ones load the machine, so one after the other
	$(BIN)/python -m pytest -m "slow or gpu" tests

lint: $(READY)  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)  ## speed against the reference, parity beside it; fails where masks are not near enough (ARGS="--sizes 1080p ..." for less)
	$(BIN)/python -m benchmarks.run $(ARGS)

reliability: $(READY)  ## the scorecard: faults injected for real, counted (some hours; ARGS="--plans 3 --every 10 ..." for less)
	$(BIN)/python -m benchmarks.reliability $(ARGS)

clean:
	rm -rf $(VENV) runs build dist
