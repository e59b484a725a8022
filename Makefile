# Every habit of the house. `make` alone lists them. Needs Python 3.11+ and make, nothing else.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

BIN := .venv/bin
# The first Python that is new enough; choose another with: make PYTHON=python3.13 test
ifndef PYTHON
PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; exit; }; done; echo none)
endif
# Extra arguments for pytest: make test ARGS="-k cron -x"
ARGS ?=
TESTS := $(wildcard tests/unit tests/conformance tests/cluster tests/acceptance tests/simulation tests/deploy)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- set up -----------------------------------------------------------------------------------------------------

.PHONY: run-env dev-env
run-env: python
	@$(PYTHON) tools/setup.py run

dev-env: python
	@$(PYTHON) tools/setup.py dev

.PHONY: python
python:
	@test "$(PYTHON)" != none || { echo "No Python 3.11 or newer found. Debian, Ubuntu: apt-get install python3 python3-venv" >&2; exit 1; }

.PHONY: setup
setup: dev-env ## Bring .venv up to date with the lock files (the other targets do it by themselves)

# ---- run --------------------------------------------------------------------------------------------------------

.PHONY: up
up: run-env ## Run the embedded server in the foreground (ports and DTS_DATABASE from the environment)
	@exec env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL $(BIN)/dts up

# Kafka and Cassandra on 127.0.0.1:9092 and :9042; ARGS="--kafka-port 19092 --cql-port 19042" for others.
.PHONY: servers servers-down
servers: python ## Start one Kafka and one Cassandra for development; their state lies in .cluster
	@$(PYTHON) deploy/local/servers.py up .cluster $(ARGS)

servers-down: python ## Stop them
	@$(PYTHON) deploy/local/servers.py down .cluster

# Kafka, Cassandra, 3 schedulers, 2 execution services, 2 job services; ARGS="--schedulers 1" for other numbers.
.PHONY: cluster cluster-down cluster-status
cluster: dev-env ## Start a whole cluster on this machine; its state lies in .cluster
	@$(PYTHON) deploy/local/cluster.py up .cluster $(ARGS)

cluster-down: python ## Stop it
	@$(PYTHON) deploy/local/cluster.py down .cluster

cluster-status: python ## What runs of it
	@$(PYTHON) deploy/local/cluster.py status .cluster

# ---- verify -----------------------------------------------------------------------------------------------------

.PHONY: test
test: dev-env ## Run every test but the long ones (ARGS="-k cron -x" goes to pytest)
	$(BIN)/python -m pytest $(TESTS) -m "not soak" $(ARGS)

.PHONY: soak
soak: dev-env ## Run the long tests
	$(BIN)/python -m pytest $(TESTS) -m soak --timeout=3600 $(ARGS)

# All of them run even if one fails: make -k check
CHECKS := check-format check-lint check-types check-imports check-protos check-generated
.PHONY: check $(CHECKS)
check: $(CHECKS) ## Verify format, lint, types, import contracts, protos and generated code

$(CHECKS): dev-env
check-format:
	$(BIN)/ruff format --check
check-lint:
	$(BIN)/ruff check
check-types:
	$(BIN)/mypy
check-imports:
	$(BIN)/lint-imports --no-cache --no-logo
check-protos:
	$(BIN)/buf lint
check-generated:
	$(BIN)/python tools/proto.py --check

.PHONY: format
format: dev-env ## Format the code, fix what lint can fix
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

.PHONY: bench
bench: dev-env ## Measure speed: tables on the terminal, JSON in bench/results
	$(BIN)/python -m bench $(ARGS)

# ---- generate ---------------------------------------------------------------------------------------------------

.PHONY: proto
proto: dev-env ## Generate src/dts/gen from api/proto
	$(BIN)/python tools/proto.py

.PHONY: lock
lock: python ## Pin the dependencies anew; PACKAGES="aiohttp grpcio" raises those alone
	$(PYTHON) tools/lock.py $(PACKAGES)

# ---- migrate ----------------------------------------------------------------------------------------------------

# Where: CASSANDRA_HOSTS, CASSANDRA_PORT and CASSANDRA_KEYSPACE, or .env. golang-migrate's own command works as well.
.PHONY: migrate-up migrate-down migrate-create
migrate-up: dev-env ## Apply the migrations of the Cassandra keyspace (n=1: one of them)
	@$(BIN)/dts migrate up $(n)

migrate-down: dev-env ## Take the last one back (n=3: three; n=all: all, with their data)
	@$(BIN)/dts migrate down $(if $(filter all,$(n)),--yes,$(or $(n),1))

migrate-create: dev-env ## Make two empty files for a new one: name=add_new_column
	@$(BIN)/dts migrate create $(if $(name),$(name),$(error say its name: make migrate-create name=add_new_column))

# ---- package ----------------------------------------------------------------------------------------------------

.PHONY: wheel
wheel: dev-env ## Build the wheel into dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation --wheel

.PHONY: wheel-test
wheel-test: wheel ## Install the wheel into an empty environment and run the command
	$(PYTHON) tools/wheel_test.py

.PHONY: clean
clean: ## Remove .venv, caches and what builds left
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .grimp_cache .hypothesis
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
