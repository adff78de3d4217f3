# Short targets. `make demo` and `make test` set up all they need: Python 3.11+, make and a package index are enough.

CACHE ?= $(HOME)/.cache/meshgw
PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null || echo $(CACHE)/uv/bin/uv)
RUN := $(UV) run --frozen
PYTEST := $(RUN) pytest
JOBS ?= auto
REAL := apiserver or cluster
SHAPE ?= single

# Workers share compiled tests, whatever the environment says: else each compiles all of them.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-fast test-envoy test-cluster test-kind cluster cluster-down lint format bench bench-cluster golden manifests clean

demo: $(UV)  ## An ambient mesh on this machine, with real Envoys.
	$(RUN) --no-default-groups meshgw demo

test: lint  ## Everything: lint, types, layers, all tests with the coverage floors.
	$(RUN) coverage erase
	$(PYTEST) -n $(JOBS) --dist loadgroup -m 'not ($(REAL))' --cov --cov-report= tests
	$(PYTEST) -n $(JOBS) --dist loadgroup -m '$(REAL)' --cov --cov-append --cov-report= tests
	$(PYTEST) -n 0 --cluster kind -m smoke tests/cluster
	$(RUN) coverage report --fail-under=90
	$(RUN) coverage report --fail-under=100 --include='meshgw/engine/*,meshgw/xds/session.py' --skip-covered

test-fast: $(UV)  ## Everything that needs neither Envoy nor Kubernetes.
	MESHGW_QUICK=1 $(PYTEST) -n $(JOBS) --dist worksteal -m 'not envoy and not ($(REAL))' --ignore tests/cluster --ignore tests/kube tests

test-envoy: $(UV)  ## Only what talks to a real Envoy.
	$(PYTEST) -n $(JOBS) --dist loadgroup -m 'envoy and not ($(REAL))' tests

test-cluster: $(UV)  ## Only what needs a real API server or cluster; builds both from Go modules when absent.
	$(PYTEST) -n $(JOBS) --dist loadgroup -m '$(REAL)' tests

test-kind: $(UV)  ## What needs a real cluster, on one that kind makes; SHAPE is a file of kind-configs.
	$(PYTEST) -n 0 --cluster kind --kind-config $(SHAPE) -m cluster tests

cluster: $(UV)  ## A cluster with istiod, meshgw and examples on this machine, to try things on; prints how to use it.
	@$(RUN) python -m tests.cluster up

cluster-down: $(UV)  ## Removes it.
	@$(RUN) python -m tests.cluster down

lint: $(UV)  ## Style, types and layers.
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(RUN) lint-imports

format: $(UV)
	$(RUN) ruff check --fix
	$(RUN) ruff format

bench: $(UV)  ## Measure; writes tests/bench/results and docs/performance.md.
	$(RUN) python -m tests.bench

bench-cluster: $(UV)  ## Measure the controller at a real API server; writes results and its part of docs/performance.md.
	$(RUN) python -m tests.bench.cluster

golden: $(UV)  ## Rewrite the golden outputs; read the diff before you commit it.
	$(PYTEST) -n $(JOBS) tests/golden --update-golden

manifests: $(UV)  ## Rewrite the generated manifests: RBAC, GatewayClasses, charts' READMEs and CRDs.
	$(RUN) python -m meshgw.install

clean:
	rm -rf .venv .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(CACHE)/uv/bin/uv:
	$(PYTHON) -m venv $(CACHE)/uv
	$(CACHE)/uv/bin/pip install --quiet 'uv>=0.5'
