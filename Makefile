# These commands do everything on a fresh machine with python3 and make:  make demo   make test   make docs
PYTHON ?= python3
TORCH  ?= torch==2.13.0
BIN    := .venv/bin
READY  := .venv/.ready
DOCS   := .venv/docs
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check docs format mutants clean

demo: $(READY)  ## solve Sudoku puzzles with the shipped model
	@$(BIN)/unmask demo

test: check  ## lint, types, import directions, then all tests
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

check: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

docs: $(DOCS)/.ready  ## the site, in build/site; links are checked, and that no page asks another host
	@$(DOCS)/bin/python docs/tools/records.py
	@$(DOCS)/bin/python docs/tools/site_pages.py

format: $(READY)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

mutants: $(READY)  ## each deliberate bug must be caught by a test
	@$(BIN)/python tests/mutants.py

# torch goes first and alone, so that nothing else picks another build of it.
$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install -q "$(TORCH)"
	@$(BIN)/pip install -q -c constraints.txt -e '.[puzzles,plots,dev]'
	@touch $(READY)

# The site reads the sources and runs nothing of them: it needs no torch.
$(DOCS)/.ready: pyproject.toml constraints.txt
	@test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	@$(DOCS)/bin/pip install -q -c constraints.txt $$($(DOCS)/bin/python docs/tools/site_pages.py --needs)
	@touch $@

clean:
	rm -rf build .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
