# Everything stays inside the checkout: the environment in .venv, caches in .cache, data in .dusuan.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV_VERSION := 0.13.9
export UV_CACHE_DIR := $(CURDIR)/.cache/uv
export UV_PROJECT_ENVIRONMENT := $(CURDIR)/$(VENV)
export UV_NO_PROGRESS := 1

.PHONY: demo test check bench install clean lock

install: $(STAMP)

$(STAMP): uv.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-cache-dir --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv sync --locked --quiet --inexact --python $(BIN)/python
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/dusuan demo --data .dusuan

test: $(STAMP)
	$(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/core tests/house

bench: $(STAMP)
	@for file in bench/[a-z]*.py; do $(BIN)/python $$file || exit 1; done

lock:
	$(BIN)/uv lock

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
