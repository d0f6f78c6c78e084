# `make train` and `make test` need nothing but Python 3.11 or 3.12 and make.
PYTHON ?= python3
BIN := .venv/bin
RECIPE ?= demo
SPREAD := --numprocesses 2 --dist loadgroup --no-loadscope-reorder

.PHONY: train search test test-slow check install lock ui clean

train: install  ## make the demo corpus, train TC-MGC on it, evaluate, say where to look
	$(BIN)/python pipeline/train.py $(RECIPE)

search: train  ## index the demo's videos with what it learnt, and open the page to search them
	run=$$(ls -td "$${TCMGC_HOME:-.}"/runs/demo-*/ | head -1) && \
	$(BIN)/python pipeline/index.py data/demo/videos --out "$${run}videos.index" --checkpoint "$$run" && \
	$(BIN)/python pipeline/serve.py "$${run}videos.index" --open

test: install  ## all quick tests, in two processes
	$(BIN)/python -m pytest $(SPREAD) -m "not slow"

test-slow: install  ## the tests that take minutes, too
	$(BIN)/python -m pytest $(SPREAD) -m "slow or not slow"

check: install  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

ui: install  ## MLflow's pages on http://127.0.0.1:5000
	$(BIN)/mlflow ui --host 127.0.0.1 --port 5000 --backend-store-uri $${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}

install: .venv/installed  ## make .venv with everything in it

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 12) else "Python 3.11 or 3.12 is needed; this is " + sys.version.split()[0] + "; name one: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --constraint constraints.txt --editable '.[dev]'
	touch $@

lock:  ## renew constraints.txt from pyproject.toml: for Linux and macOS, CPU and CUDA
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet uv
	.venv-lock/bin/uv pip compile --quiet --universal --upgrade --no-annotate --python-version 3.11 --extra dev --extra hf \
	  --custom-compile-command 'make lock' --output-file constraints.txt pyproject.toml
	rm -rf .venv-lock

clean:  ## remove what is made, but for data and runs
	rm -rf .venv *.egg-info .pytest_cache .ruff_cache .mypy_cache
