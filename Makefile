# `make demo` and `make test` are all a newcomer needs, in either order: both set everything up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
READY := $(VENV)/.ready
# Processes of the tests: one a core, four at most.
WORKERS ?= $(shell n=$$(nproc); echo $$((n < 4 ? n : 4)))
# Clusters mostly wait, so three processes at once even on two cores.
TEST_SLURM := pytest -n 3 --dist loadfile -m slurm
export SNAKEMAKE_PROFILE ?= profiles/local
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup demo test test-fast test-slurm check format schema lock clean-results clean

setup: $(READY)

$(READY): requirements.lock pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 13) else \
	    "darkroom needs Python 3.11 or 3.12, and $(PYTHON) is %d.%d; try: make PYTHON=python3.11" % v)'
	@echo "setting up $(VENV) (some minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements.lock
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	@touch $(READY)

demo: $(READY)
	@snakemake --quiet all

# A file's tests share what they have made, so a file stays in one process.
test: $(READY)
	pytest -n $(WORKERS) --dist loadfile -m "not slurm"
	@if command -v sbatch >/dev/null; then $(TEST_SLURM); \
	    else echo "left out: the tests on a SLURM cluster (apt-get install slurm-wlm munge)"; fi

test-fast: $(READY)
	pytest -n $(WORKERS) --dist loadfile -m "not slow and not slurm"

# A private cluster on this machine, started and stopped by the tests.
test-slurm: $(READY)
	@command -v sbatch >/dev/null || \
	    { echo "SLURM is not installed: apt-get install --no-install-recommends slurm-wlm munge"; exit 1; }
	$(TEST_SLURM)

check: $(READY)
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	python workflow/lint.py
	mypy

format: $(READY)
	ruff check --fix .
	ruff format .
	snakefmt Snakefile rules

schema: $(READY)
	darkroom schema > config/schema.json

lock: $(READY)
	uv pip compile --quiet --extra dev --generate-hashes --no-emit-index-url --no-header --no-annotate \
	    pyproject.toml -o requirements.lock

clean-results:
	rm -rf results checkpoints logs .snakemake
	@git checkout --quiet -- results 2>/dev/null || true

clean: clean-results
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
