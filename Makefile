# Everything is run through a virtual environment in .venv, made on first use.
# `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN := $(BIN)/dsocr-batch run
DEMO_OUT := demo-output
FAULTS ?= 300
SEED ?= 0
FUZZ_SECONDS ?= 60
# Tests start the command hundreds of times, which is to be compiled once.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install check test test-long test-vllm test-faults fuzz soak demo smoke eval-cer eval-post eval-loops bench-post golden format clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# The stamp is new whenever a dependency or an entry point may have changed.
$(STAMP): pyproject.toml constraints.txt tests/scripted_engine/pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "dsocr-batch needs Python 3.11 or newer, this is %d.%d: make PYTHON=python3.11 …" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable . --editable tests/scripted_engine
	@touch $@

install: $(STAMP)  ## make the virtual environment

check: $(STAMP)  ## formatting, lint, types, layers, fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n auto -m 'not slow and not long' -q

test: check  ## check, then the slow tests that need no GPU
	$(BIN)/pytest -n auto -q -m 'slow and not long' --durations 15

test-long: $(STAMP)  ## what is too long for every change: clusters and stores in all their moods, made-up loops
	$(BIN)/pytest -n auto -q -m long

test-vllm: $(STAMP)  ## tests with a real vLLM on the CPU, at both ends of the supported range
	PYTHONPATH=tests $(BIN)/python -m with_vllm

# Seed n makes a fault of kind n modulo their number, so a seed can be repeated alone.
test-faults: $(STAMP)  ## runs disturbed by a seeded fault, resumed and compared; FAULTS=300 SEED=0
	PYTHONPATH=tests $(BIN)/python -m faults --runs $(FAULTS) --seed $(SEED)

fuzz: $(STAMP)  ## readers of foreign text under random changes; FUZZ_SECONDS=60
	PYTHONPATH=tests $(BIN)/python -m fuzzing --seconds $(FUZZ_SECONDS)

soak: $(STAMP)  ## 20,000 pages in one run, with failures and deaths: does anything grow?
	$(BIN)/python scripts/soak.py

demo: $(STAMP)  ## read the sample PDFs with the CPU engine and show what came out
	@rm -rf $(DEMO_OUT)
	$(RUN) --input-dir scripts/demo/samples --output-dir $(DEMO_OUT)
	@$(BIN)/python scripts/demo/show.py $(DEMO_OUT)

smoke: $(STAMP)  ## a run under a time limit, then its resume
	scripts/smoke.sh $(RUN)

eval-cer: $(STAMP)  ## character error rate of the CPU engine against ground truth
	$(BIN)/python scripts/eval_cer.py

eval-post: $(STAMP)  ## what post-processing keeps of real model output, against its floors
	$(BIN)/python scripts/eval_postprocess.py

eval-loops: $(STAMP)  ## how well loops are found while pages are written, against its floors
	$(BIN)/python scripts/eval_loops.py

bench-post: $(STAMP)  ## speed of post-processing, and that its time grows in a straight line
	$(BIN)/python scripts/bench_post.py --adversarial

golden: $(STAMP)  ## write the golden files anew, to be reviewed as a diff
	$(BIN)/python tests/test_golden.py

format: $(STAMP)  ## rewrite the code in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove what make made
	rm -rf $(VENV) .venv-vllm-* $(DEMO_OUT) .mypy_cache .ruff_cache .pytest_cache
