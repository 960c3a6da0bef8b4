# Every target makes .venv and installs what is missing first; outside this folder only your cache folder is written to.
# Each recipe line can be copied. On Windows: `py -3 -m venv .venv`, and .venv\Scripts in place of .venv/bin.

PYTHON ?= python3
RUN    ?= runs/tiny
BIN    := .venv/bin

.PHONY: help train page test test-all notebooks figures lab lint install clean

help:                            ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s%s\n", $$1, $$2 }' Makefile

install: .venv/installed         ## .venv with everything but PyTorch

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

train: install                   ## train the tiny preset on the built-in corpus, with samples before and after
	$(BIN)/minids train --preset tiny --data builtin --out $(RUN)

page: install                    ## one HTML file in which that model computes; trains it first if there is none
	test -e $(RUN)/latest || $(MAKE) train
	$(BIN)/minids page --checkpoint $(RUN) --out page.html

test: install                    ## everything that needs neither PyTorch nor minutes
	$(BIN)/python -m pytest --numprocesses 2

test-all: test                   ## and what does: parity with PyTorch and transformers, long runs
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,parity]"
	$(BIN)/python -m pytest --numprocesses 2 -m "slow or parity"

notebooks: install               ## execute notebooks/src into the notebooks and their exercise versions; ONLY="02 05" for some
	$(BIN)/python notebooks/build.py $(ONLY)

figures: install                 ## draw the figures into figures/, from the run in RUN
	$(BIN)/minids figures --run $(RUN) --out figures

lab: install                     ## open the notebooks in JupyterLab, at their index
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,notebooks]"
	$(BIN)/python -m jupyter lab notebooks/index.ipynb

lint: install                    ## style, format and types, as `make test` does not see them
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean:                           ## remove .venv and what was built
	rm -rf .venv build dist
