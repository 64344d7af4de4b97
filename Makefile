# make demo: set up and run the whole method on generated street scenes. make quick: tests of the parts, in a minute.
# make test: all tests but the long ones. make test-all: every test. make lint: style, types and layers.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
TEST := $(RUN) -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder
# Left to make test: composing every row of the paper and every preset, and starting the commands.
QUICK := tests/functional tests/test_losses.py tests/acquisition tests/selection tests/labelstore tests/config \
  $(addprefix --ignore=tests/config/test_,experiments.py hardware.py command_line.py)
ARGS ?=

.PHONY: demo quick test test-all soak lint docs doctor-cases bench benchmark compare chance study install clean

demo: install
	$(RUN) -m ripu.train $(ARGS)

quick: install
	$(TEST) -m "not slow" $(QUICK) $(ARGS)

test: install
	$(TEST) -m "not slow" $(ARGS)

test-all: install
	$(TEST) $(ARGS)

soak: install
	$(RUN) scripts/soak.py $(ARGS)

lint: install
	$(RUN) -m ruff check src tests scripts
	$(RUN) -m ruff format --check src tests scripts
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports --no-logo

docs: install
	$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict $(ARGS)

doctor-cases: install
	$(RUN) scripts/doctor_cases.py $(ARGS)

bench: install
	$(RUN) scripts/bench.py $(ARGS)

benchmark: install
	$(RUN) scripts/benchmark.py $(ARGS)

compare: install
	$(RUN) scripts/compare.py --out runs/compare $(ARGS)

chance: install
	$(RUN) scripts/chance.py $(ARGS)

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
