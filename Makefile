# make demo: set up and run the whole method on generated street scenes. make test: set up and run the tests, make test-all:
# the long ones, too.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
TEST := $(RUN) -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder
ARGS ?=

.PHONY: demo test test-all soak lint bench compare study install clean

demo: install
	$(RUN) -m ripu.train $(ARGS)

test: install
	$(TEST) -m "not slow" $(ARGS)

test-all: install
	$(TEST) $(ARGS)

soak: install
	$(RUN) tests/faults/soak.py $(ARGS)

lint: install
	$(RUN) -m ruff check src tests scripts
	$(RUN) -m mypy

bench: install
	$(RUN) scripts/bench.py $(ARGS)

compare: install
	$(RUN) scripts/compare.py --out runs/compare $(ARGS)

study: install
	$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[superpixels]'
	$(RUN) scripts/study.py $(ARGS)

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "Python 3.10 or newer is needed; choose one with: make PYTHON=/path/to/python3 demo"; exit 1; }
	@echo "setting up $(VENV): PyTorch and friends, some minutes and 6 GB the first time"
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) data/streets outputs runs
