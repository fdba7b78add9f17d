# Everything runs in .venv, made from PYTHON at the first call and reused after that.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT := out
SCENE_WORDS := bus, strawberry, owl, tree, grass, sky
METHOD := -m ensemble --refine pamr
PHOTO_WORDS := horse, person, sand, sea, sky

.PHONY: help demo check test lint wheel clean

help:
	@echo "make demo   segment demo/scene.png and demo/photo.jpg with the embedded model; results in $(OUT)/"
	@echo "make check  ruff, mypy and the fast tests, for every change"
	@echo "make test   ruff, mypy and the whole test suite, before a change is handed in"
	@echo "make lint   ruff and mypy only"
	@echo "make wheel  build the wheel into dist/"
	@echo "make clean  remove results, caches and builds (not $(VENV))"

demo: $(VENV)/.installed
	$(BIN)/ovseg predict demo/scene.png $(METHOD) -c "$(SCENE_WORDS)" --out $(OUT)
	$(BIN)/ovseg predict demo/photo.jpg $(METHOD) -c "$(PHOTO_WORDS)" --out $(OUT)
	@echo "The results are in $(CURDIR)/$(OUT): overlays with legend, label PNGs, JSON with masks."

check: lint
	$(BIN)/pytest -q -m "not slow"

test: lint
	$(BIN)/pytest -q

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/mypy

wheel: $(VENV)/.installed
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

clean:
	rm -rf build dist $(OUT) .pytest_cache .ruff_cache .mypy_cache *.egg-info
	find . -name __pycache__ -not -path "./$(VENV)/*" -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "No Python at '$(PYTHON)': install Python 3.10 to 3.13, or say which: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "$$($(PYTHON) -V) is not among 3.10 to 3.13: say which to use, as in make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments: install its venv package (Debian, Ubuntu: apt install" \
	       "python3-venv), or say which Python to use, as in make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# pip takes torch from PyPI: on Linux that is the CUDA build, which runs without a GPU as well.
$(VENV)/.installed: pyproject.toml requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt -e ".[dev]"
	@touch $@
