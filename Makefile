# Two targets do all the set-up: `make demo` and `make test`. Everything lives in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
ORACLE := .oracles/torchdiffeq-0.0.1
BENCHMARKS := solvers long_solves models stability honest_nets attacks training certificates
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet

.PHONY: demo test slow check bench papers docs clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("verigrad needs Python 3.11 or later; this is %d.%d. Fix: make PYTHON=python3.11" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt torch==2.13.0
	$(PIP) install --constraint constraints.txt --editable .
	touch $@

$(READY): $(VENV)/.installed
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	test -d $(ORACLE)/torchdiffeq || $(PIP) install --no-deps --target $(ORACLE) torchdiffeq==0.0.1
	touch $@

demo: $(VENV)/.installed
	$(BIN)/verigrad demo

test: check
	$(BIN)/python -m pytest -n auto --dist loadfile

slow: $(READY)
	$(BIN)/python -m pytest -m slow

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

bench: $(READY)
	for file in $(BENCHMARKS); do $(BIN)/python benchmarks/$$file.py || exit 1; done

# The papers' pages and figures again, from the committed results.
papers docs: $(VENV)/.installed
	$(BIN)/python -m verigrad.papers.pages docs/papers/results docs/papers

clean:
	rm -rf $(VENV) .oracles runs
