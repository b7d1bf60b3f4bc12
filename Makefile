# Two commands: `make demo` and `make test`. Both create the environment when it is not there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-legacy check install clean

# Reinstalls only when the list of dependencies has changed.
$(STAMP): pyproject.toml
	@echo "== install: environment in $(VENV) (first time: some minutes)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "genba needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	@start=$$(date +%s) && \
	$(PYTHON) -m venv $(VENV) && \
	$(BIN)/python -m pip install --quiet --upgrade pip && \
	$(BIN)/python -m pip install --quiet --editable '.[host,meters,postgres,onnx,ray,demo,dev]' && \
	$(BIN)/python -m pip install --quiet --no-deps 'onnx2torch>=1.5.15,<2' && \
	touch $(STAMP) && \
	echo "== install: done in $$(( $$(date +%s) - start )) s"

install: $(STAMP)

demo: $(STAMP)
	@$(BIN)/python examples/elpv/demo.py

test: $(STAMP)
	@echo "== test: the whole suite"
	@start=$$(date +%s) && $(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not alone" && \
	$(BIN)/python -m pytest -q -m alone && \
	echo "== test: done in $$(( $$(date +%s) - start )) s"

# Old machines, emulated: needs root, Debian's apt and mmdebstrap. BOARDS="pi2 core2" shows these only.
BOARDS ?=
test-legacy: $(STAMP)
	@echo "== test-legacy: the agent on emulated old machines"
	@$(BIN)/python -m tests.legacy $(BOARDS)

# What .ci/run checks before the tests.
check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --allow-untyped-defs --allow-incomplete-defs --allow-untyped-calls tests
	$(BIN)/mypy --python-version 3.10 -p device_agent -p protos
	$(BIN)/lint-imports
	$(BIN)/vulture

clean:
	rm -rf $(VENV) demo-workspace dist build .legacy-roots
