# Every target sets up what it needs. Needed on the machine: make, bash, and Python 3.11 or newer.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; break; }; done)
BIN := .venv/bin

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 12

.venv/synced: requirements/dev.txt requirements/bootstrap.txt requirements/build.txt pyproject.toml scripts/setup
	@if [ -z "$(PYTHON)" ]; then echo "setup: no Python 3.11 or newer was found; install one, or name it: make setup PYTHON=/path/to/python3" >&2; exit 1; fi
	@echo "Setting up .venv with $(PYTHON) …"
	@scripts/setup "$(PYTHON)"

# The runtimes for GPUs exclude those for CPUs: they get an environment of their own, on machines with a GPU only.
GPU_ENVIRONMENT := $(if $(shell command -v nvidia-smi),.venv-gpu,.venv)

.venv-gpu/synced: requirements/gpu-dev.txt requirements/bootstrap.txt requirements/build.txt pyproject.toml scripts/setup
	@echo "Setting up .venv-gpu with $(PYTHON) …"
	@scripts/setup "$(PYTHON)" .venv-gpu requirements/gpu-dev.txt

.PHONY: setup
setup: .venv/synced ## Make .venv and install everything that is locked

.PHONY: demo
demo: .venv/synced ## Run the main job: a slide, a document and a lab list, through both programs
	@$(BIN)/python scripts/demo.py

.PHONY: test
test: .venv/synced ## Run all tests
	@$(BIN)/pytest -n 2 --dist worksteal

.PHONY: fuzz
fuzz: .venv/synced ## Send the server what nobody should send, for ten minutes
	@$(BIN)/python scripts/fuzz.py

UNDER_KILLS := $(wildcard tests/acceptance/test_*_under_kills.py) \
	tests/acceptance/test_card_worker.py::test_no_document_is_lost_or_done_twice_while_workers_are_killed

.PHONY: faults
faults: .venv/synced ## Have every fault happen at every step of the bridge, on every source, and many jobs done under kills
	@$(BIN)/pytest -n 2 --dist worksteal tests/faults $(UNDER_KILLS) --whole-matrix

.PHONY: lint
lint: .venv/synced ## Check style, types, layers, protos, Dockerfiles and scripts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint proto
	scripts/proto --check
	$(BIN)/python scripts/configuration.py --check
	$(BIN)/hadolint Dockerfile.bridge Dockerfile.cpu Dockerfile.gpu Dockerfile.models
	$(BIN)/shellcheck .ci/run scripts/setup scripts/lock scripts/proto scripts/slim_image deploy/deploy.sh deploy/requeue_stuck_jobs.sh
	@if command -v terraform >/dev/null; then echo terraform fmt -check -recursive deploy/terraform; TF_CLI_CONFIG_FILE=/dev/null terraform fmt -check -recursive deploy/terraform; fi

.PHONY: format
format: .venv/synced ## Put the code in its standard form
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: proto
proto: .venv/synced ## Generate the stubs from the protos
	scripts/proto

.PHONY: settings
settings: .venv/synced ## Write docs/configuration.md from the settings
	$(BIN)/python scripts/configuration.py

.PHONY: lock
lock: .venv/synced ## Lock the requirements anew
	scripts/lock

# Those that have bars; the one that needs a GPU is none of them.
BENCHMARKS = $(filter-out benchmarks/gpu_throughput.py,$(shell grep -l -e '"--check"' benchmarks/*.py))

.PHONY: bench
bench: .venv/synced ## Run every benchmark that has bars on this machine's CPU, and tell which are missed
	@$(BIN)/python scripts/bench.py $(BENCHMARKS)

.PHONY: test-gpu
test-gpu: $(GPU_ENVIRONMENT)/synced ## Run the tests that need a GPU; without one they skip visibly
	@$(GPU_ENVIRONMENT)/bin/python -m pytest -m gpu tests/gpu

.PHONY: bench-gpu
bench-gpu: $(GPU_ENVIRONMENT)/synced ## Run the benchmark that needs a GPU; without one it says so
	@$(GPU_ENVIRONMENT)/bin/python benchmarks/gpu_throughput.py --check

.PHONY: clean
clean: ## Remove everything that was made here
	rm -rf .venv .venv-gpu .cache .demo .lamina results .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
