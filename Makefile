PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint docs clean

demo: .venv/demo  ## Adapt a real network to real photographs in three ways (ARGS=--quick for a short look)
	$(BIN)/transfer-jax demo $(ARGS)

test: .venv/test  ## Run the tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: .venv/test  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: .venv/docs  ## Build the site into build/site, and run the notebooks
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -b html -d build/doctrees docs build/site

.venv/demo: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[demo]"
	touch $@

.venv/test: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

.venv/docs: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

clean:
	rm -rf .venv build runs
