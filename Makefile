# Every target makes .venv and installs what is missing first; outside this folder only your cache folder is written to.
# Each recipe line can be copied. On Windows: `py -3 -m venv .venv`, and .venv\Scripts in place of .venv/bin.

PYTHON ?= python3
RUN    ?= runs/tiny
BIN    := .venv/bin

.PHONY: train page test test-all notebooks lab lint install clean

install: .venv/installed

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

lab: install                     ## open the notebooks in JupyterLab
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,notebooks]"
	$(BIN)/python -m jupyter lab notebooks

lint: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:
	rm -rf .venv build dist
