PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1

MINUTES ?= 60
SEED ?= 1

.PHONY: rank quick test slow coverage bounds properties check format fuzz oldest bench accuracy \
  scheduler real-engine docs clean

rank: $(VENV)/.installed ## rank the strategies of Llama-3.1-70B on 16 H100s for a chat workload
	$(BIN)/bestserve rank --model meta-llama/Llama-3.1-70B --hardware h100-sxm --gpus 16 \
	  --input-len "lognormal:2000,0.8" --output-len "lognormal:300,1" \
	  --goodput ttft:1000 tpot:50 --percentile 90

QUICK := tests/test_layout.py tests/specs tests/catalog tests/queues/test_theory.py \
  tests/formats/test_conformance.py tests/formats/test_readers.py tests/formats/test_samples.py \
  tests/docs/test_docstrings.py

quick: $(VENV)/.tests ## what tells most in a minute: layout, specs, catalogue, theory, formats, examples
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow" $(QUICK)

test: $(VENV)/.tests ## run everything: unit, theory, derivations, docs, README
	$(BIN)/python -m pytest -n 2 --dist loadfile

bounds: $(VENV)/.tests ## run the compiled loops with bounds checks
	BESTSERVE_LOOPS=checked $(BIN)/python -m pytest -q \
	  tests/queues/test_catalogue_properties.py tests/queues/test_everywhere.py \
	  tests/queues/test_whole_prompts.py tests/simulator/test_policies.py

properties: $(VENV)/.tests ## ask random questions for MINUTES (60) and count what must not be
	$(BIN)/python validation/properties.py --seed $(SEED) --minutes $(MINUTES)

slow: $(VENV)/.tests ## run only what takes more than five seconds a test
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

coverage: $(VENV)/.tests ## run everything and fail below the floor in pyproject.toml
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered

check: $(VENV)/.dev ## lint, types, import contracts, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz: $(VENV)/.tests ## a million hostile inputs over every surface, counted: FUZZ="--inputs 1000 --seed 3"
	$(BIN)/python tests/edges/fuzz.py $(FUZZ)

oldest: $(BIN)/python ## run allocate and others on the oldest versions that pyproject.toml allows
	.ci/oldest $(BIN)/python

bench: $(VENV)/.tests ## print every benchmark's ratios
	for file in benchmarks/*.py; do $(BIN)/python $$file || exit 1; done

accuracy: $(VENV)/.tests ## regenerate validation/report.md from the measurements beside the checkout
	$(BIN)/python validation/accuracy.py

scheduler: $(VENV)/.tests ## hold the simulator to the scheduler of a vLLM: BESTSERVE_VLLM_PYTHON=path
	$(BIN)/python validation/vllm_scheduler.py --vllm-python "$(BESTSERVE_VLLM_PYTHON)"

real-engine: $(VENV)/.tests ## serve and measure a vLLM on this CPU, left alone meanwhile, and predict it
	$(BIN)/python validation/real_engine.py
	$(BIN)/python validation/real_engine_report.py

docs: $(VENV)/.dev ## build the documentation strictly
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bestserve needs Python 3.11 or newer; try make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@

$(VENV)/.tests: $(VENV)/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[test]"
	@touch $@

$(VENV)/.dev: $(VENV)/.tests
	$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info docs/_build
