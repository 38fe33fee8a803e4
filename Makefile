# make demo   runs the main job on the embedded default and leaves a report
# make test   lint and tests
# make setup  makes .venv from constraints.txt; the others do it themselves
# make chaos, test-slow, browser-test, dashboards-test, storage-test           longer tests
# make bench-elicit, bench-train, bench-predict REAL_DATA=folder measurements on real reactions
# make bench-gpu                                               training speed on a GPU

PYTHON ?= python3
VENV := .venv
S3_VENV := .venv-s3
BIN := $(VENV)/bin
CONFIG ?= tune_configs/demo.yaml
PYTEST_WORKERS ?= 2
PIP := PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/pip --disable-pip-version-check --quiet
STAMP := $(VENV)/.complete
# Where bytecode is not kept, each of Ray's many processes compiles torch anew, for 8 s.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint chaos bench-train bench-elicit bench-predict bench-gpu test-slow dashboards-test storage-test browser-test setup clean

demo: $(STAMP)
	$(BIN)/raycrp run $(CONFIG)

test: lint
	$(BIN)/pytest --numprocesses $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder --durations=15

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

chaos: $(STAMP)
	$(BIN)/pytest -m chaos

bench-train: $(STAMP)
	$(BIN)/python -m bench.train $(REAL_DATA)

bench-elicit: $(STAMP)
	$(BIN)/python -m bench.elicit $(REAL_DATA)

bench-predict: $(STAMP)
	$(BIN)/python -m bench.predict $(REAL_DATA)

bench-gpu: $(STAMP)
	$(BIN)/python -m bench.gpu

test-slow: $(STAMP)
	$(BIN)/pytest -m slow

dashboards-test: $(STAMP)
	apt-get install --yes prometheus
	$(BIN)/pytest -m '' tests/unit/test_dashboards.py tests/integration/test_prometheus.py

# A virtual environment of its own: moto's packages contradict constraints.txt.
storage-test: $(STAMP)
	test -x $(S3_VENV)/bin/moto_server || { $(PYTHON) -m venv $(S3_VENV) && $(S3_VENV)/bin/pip install --quiet 'moto[server]==5.2.5'; }
	PATH=$(S3_VENV)/bin:$$PATH $(BIN)/pytest -m '' tests/e2e/test_object_storage.py

browser-test: $(STAMP)
	$(BIN)/pytest -m browser tests/browser

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'raycrp needs Python 3.11 or newer: make PYTHON=python3.12')"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip
	$(PIP) install --no-compile --editable '.[dev]'
	$(BIN)/python -m compileall -qq -j 0 -x '/tests?/|/testing/' $(VENV)/lib || true  # some files are for newer Pythons
	touch $@

clean:
	rm -rf $(VENV) $(S3_VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
