# Everything runs in .venv, made on first use. `make` alone lists the targets.
PYTHON ?= python3
BIN := .venv/bin
PACKAGE := .venv/package-installed
INSTALLED := .venv/installed
WAREHOUSE := .venv/warehouse-installed
BROWSER := .venv/browser-installed
SAMPLE := demo
# Pages with parts that cog writes from the commands.
GENERATED := docs/cli.md docs/configuration.md
MOVIELENS := movielens
# ml-latest-small or ml-25m, downloaded where no DATA folder with ratings.csv and movies.csv is given
DATASET ?= ml-latest-small
DATA ?= $(MOVIELENS)/$(DATASET)
GROUPLENS ?= https://files.grouplens.org/datasets/movielens

# Tests start hundreds of processes: let them share the bytecode, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=

# Test processes: one per core
WORKERS ?= auto
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: help demo test test-slow test-browser test-warehouse faults check wheel-test movielens benchmark-training gpu-check thirty-nights docs readme clean

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/'

$(PACKAGE): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(INSTALLED): $(PACKAGE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(PACKAGE)  ## generate a sample of ratings, run the whole job on it, show what users get
	$(BIN)/python examples/generate.py $(SAMPLE)
	cd $(SAMPLE) && ../$(BIN)/batchrec build-sequences
	cd $(SAMPLE) && ../$(BIN)/batchrec train --max-epochs 8
	cd $(SAMPLE) && ../$(BIN)/batchrec score --items movies.csv --out recs.parquet
	$(BIN)/python examples/show.py $(SAMPLE)

test: $(INSTALLED)  ## run the tests except the slow ones, with an eighth of hypothesis' examples
	$(PYTEST) -m "not slow" --hypothesis-profile quick --ignore tests/warehouse --ignore tests/browser

test-slow: $(INSTALLED)  ## run the slow tests, among them the short form of the fault suite, and all examples of hypothesis
	$(PYTEST) -m "slow or hypothesis" --ignore tests/warehouse --ignore tests/browser

faults: $(INSTALLED)  ## run the long form of the fault suite: hundreds of kills, full disks and signals
	BATCHREC_FAULTS=long $(PYTEST) tests/faults

$(BROWSER): $(INSTALLED)
	sh tests/browser/install_browser.sh
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,browser]'
	touch $@

test-browser: $(BROWSER)  ## look at the pages of report and explore in a headless Chromium: layout, colours, accessibility
	$(PYTEST) tests/browser

$(WAREHOUSE): $(INSTALLED)
	sh tests/warehouse/install_servers.sh
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,warehouse]'
	touch $@

test-warehouse: $(WAREHOUSE)  ## run the tests against real stores and engines, started on this machine
	$(PYTEST) tests/warehouse

check: $(INSTALLED)  ## format, lint, types, import rules, SQL, docs, tests except the slow ones
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sqlfluff lint sql
	$(BIN)/cog --check $(GENERATED)
	$(MAKE) docs
	$(MAKE) test

wheel-test: $(PACKAGE)  ## build the wheel, and run the job with it in a clean environment away from the checkout
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	PYTHON=$(PYTHON) GENERATE=$(CURDIR)/examples/generate.py CONSTRAINTS=$(CURDIR)/constraints.txt \
		REQUIREMENTS=$(CURDIR)/examples/requirements-score.txt sh examples/try_wheel.sh $(CURDIR)/dist/*.whl

movielens: $(INSTALLED) $(DATA)/ratings.csv  ## run the job on MovieLens: DATASET=ml-25m, or DATA=folder of your own copy
	mkdir -p $(MOVIELENS)
	$(BIN)/batchrec build-sequences --ratings $(DATA)/ratings.csv --out $(MOVIELENS)/sequences.parquet
	$(BIN)/batchrec train --sequences $(MOVIELENS)/sequences.parquet --out $(MOVIELENS)/model
	$(BIN)/batchrec score --sequences $(MOVIELENS)/sequences.parquet --model $(MOVIELENS)/model \
		--items $(DATA)/movies.csv --out $(MOVIELENS)/recs.parquet

$(MOVIELENS)/%/ratings.csv: | $(INSTALLED)
	mkdir -p $(MOVIELENS)
	$(BIN)/python -c 'import sys, urllib.request; urllib.request.urlretrieve(*sys.argv[1:])' \
		$(GROUPLENS)/$*.zip $(MOVIELENS)/$*.zip
	$(BIN)/python -m zipfile -e $(MOVIELENS)/$*.zip $(MOVIELENS)
	touch $@

benchmark-training: $(INSTALLED)  ## training throughput, compared with a plain PyTorch loop
	$(BIN)/python examples/benchmark_training.py

# Where gpu-check writes its tables
GPU_CHECK := gpu-check

gpu-check: $(INSTALLED)  ## check this machine's GPU in 8 minutes: parity with the CPU, throughput of score and train, 3 million items
	$(BIN)/python examples/gpu_check.py --out $(GPU_CHECK)

# Where the shop of the thirty nights is set up, and is left to look at
NIGHTS := thirty-nights
ONLINE_RETAIL := $(if $(filter-out file,$(origin DATA)),$(DATA))

thirty-nights: $(INSTALLED)  ## thirty nights of a shop: DATA=folder of Online Retail's files, one CSV a day
ifeq ($(ONLINE_RETAIL),)
	@echo "skipped: DATA names no folder of Online Retail's files, one CSV a day (https://doi.org/10.24432/C5BW33)"
else
	rm -rf $(NIGHTS)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python examples/thirty_nights.py "$(ONLINE_RETAIL)" $(NIGHTS)
endif

docs: $(INSTALLED)  ## build the documentation into site/; warnings are errors
	$(BIN)/mkdocs build --strict --quiet

readme: $(INSTALLED)  ## write the generated pages again: docs/cli.md and docs/configuration.md
	$(BIN)/cog -r $(GENERATED)

clean:  ## remove what the targets made
	rm -rf .venv build dist site $(SAMPLE) $(MOVIELENS) $(GPU_CHECK) $(NIGHTS)
