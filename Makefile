# The two commands of a newcomer are `make quickstart` and `make test`; both make .venv themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# A file's tests stay in one process; two processes suit two cores.
PYTEST := $(BIN)/pytest --numprocesses=2 --dist=loadfile

.PHONY: quickstart test test-slow check format benchmark arm64 tables constraints clean

quickstart: $(INSTALLED)
	$(BIN)/kd-train --config=configs/quickstart.py --workdir=runs/quickstart

# The default tests under tf_keras and under Keras 3.
test: $(INSTALLED)
	TF_USE_LEGACY_KERAS=1 $(PYTEST) -m "not slow"
	TF_USE_LEGACY_KERAS=0 $(PYTEST) -m "not slow"

test-slow: $(INSTALLED)
	TF_USE_LEGACY_KERAS=1 $(BIN)/pytest -m slow
	TF_USE_LEGACY_KERAS=0 $(BIN)/pytest -m slow

# What every commit passes.
check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy kd_keras tflite_export configs benchmarks
	TF_USE_LEGACY_KERAS=1 $(BIN)/pytest -m "not slow" tests/methods tests/test_architecture.py tests/test_labels.py

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: $(INSTALLED)
	TF_USE_LEGACY_KERAS=1 $(BIN)/python benchmarks/step_time.py

# What `kd-benchmark --device=arm64` needs, into a cache folder; nothing where it is there.
arm64: $(INSTALLED)
	$(BIN)/python -m tflite_export.measuring.arm64_setup

# The tables of docs/ that are made from the code.
tables: $(INSTALLED)
	TF_USE_LEGACY_KERAS=1 $(BIN)/python docs/methods.py
	TF_USE_LEGACY_KERAS=1 $(BIN)/python docs/networks.py

# Resolve the versions anew, for all Pythons at once.
constraints:
	$(BIN)/python -m pip install uv
	$(BIN)/uv pip compile --universal --python-version 3.10 --extra dev setup.cfg \
		--no-annotate --no-header -o constraints.txt

$(INSTALLED): setup.cfg constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(INSTALLED)

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache
