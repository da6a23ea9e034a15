# Everything stays inside the checkout: the environment in .venv, caches in .cache, data in .dusuan.
# Needs make and Python 3.11 or later with its venv module (Debian: python3-venv), and PyPI once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV_VERSION := 0.13.9
export UV_CACHE_DIR := $(CURDIR)/.cache/uv
export UV_PROJECT_ENVIRONMENT := $(CURDIR)/$(VENV)
export UV_NO_PROGRESS := 1
export PIP_NO_CACHE_DIR := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
# A firm's own certificate authority counts, where the system keeps a list of them.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export UV_SYSTEM_CERTS ?= 1
endif
# An environment that the caller has active is not ours, nor are its settings for Python.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH

.PHONY: demo test check search bench accuracy install mutants ratchet lock clean

install: $(STAMP)

# An install that was cut off leaves no stamp, and an environment without pip is made anew.
$(STAMP): uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or later is needed: make PYTHON=python3.11"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	$(BIN)/uv sync --locked --quiet --inexact --python $(BIN)/python
	$(BIN)/python -m dusuan.core.scheduling.warm
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/dusuan demo --data .dusuan

test: $(STAMP)
	$(BIN)/python -m pytest

# The quick half of the tests, and everything that needs no server.
check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/core tests/house

# Property tests on examples that nobody has tried yet; ROUNDS times.
search: $(STAMP)
	for round in $$(seq $${ROUNDS:-1}); do \
	    $(BIN)/python -m pytest -q --hypothesis-profile=search \
	        $$(grep -rl "import.* given" tests) || exit 1; done

bench: $(STAMP)
	@for file in bench/[a-z]*.py; do $(BIN)/python $$file || exit 1; done

# Errors of every estimate on data that its fit has not seen; writes docs/accuracy.md.
accuracy: $(STAMP)
	$(BIN)/python -m bench.accuracy

# Change one sign at a time in the ledger's and the meter's rules: does a test notice?
mutants: $(STAMP)
	$(BIN)/python tests/house/mutants.py

# Lower the limits on function lengths to what they are now; nothing raises them.
ratchet: $(STAMP)
	$(BIN)/python tests/house/measure.py --tighten

lock: $(STAMP)
	$(BIN)/uv lock

# Leaves .dusuan alone: it is data.
clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
