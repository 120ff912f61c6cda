# Two commands do everything: `make reproduce` and `make test`. Both make their own environment in .venv first.
# With uv on the path it installs (faster); else Python's own venv and pip. Either takes exactly requirements.lock.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
STRIP := --extra-keys "metadata.papermill cell.metadata.papermill metadata.language_info.version"
NOTEBOOKS = $(wildcard notebooks/*.ipynb)
RIVAL := .venv-anomalib
CODE := adlib benchmarks notebooks tests

.PHONY: help install reproduce check test test-slow lint format lock addresses benchmark cross-check reference clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

install: $(STAMP)  ## the environment in .venv, from requirements.lock with hashes

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	  { echo "adlib needs Python >= 3.11, but $(PYTHON) is older; try: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 2; }
	@if command -v uv > /dev/null; then \
	  set -ex; \
	  test -x $(BIN)/python || uv venv --quiet --python "$$(command -v $(PYTHON))" .venv; \
	  VIRTUAL_ENV=.venv uv pip sync --require-hashes requirements.lock; \
	  VIRTUAL_ENV=.venv uv pip install --quiet --no-deps --no-build-isolation -e .; \
	else \
	  set -ex; \
	  test -x $(BIN)/pip || $(PYTHON) -m venv .venv; \
	  $(BIN)/pip install --require-hashes -r requirements.lock; \
	  $(BIN)/pip install --no-deps --no-build-isolation -e .; \
	fi
	@touch $@

reproduce: install  ## every paper in a reduced setting on embedded data; prints a table and what to open
	$(BIN)/python -m adlib batch batch/quick.yml

check: install  ## verdicts on the runs of `make reproduce`; fails where one is missing or a number is not reproduced
	$(BIN)/python -m adlib check batch/quick.yml --allow-incomparable

test: install  ## the tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: install  ## the tests that take minutes, and those that need SLURM where it is installed
	$(BIN)/python -m pytest -m "slow or slurm"

lint: install  ## style, and that no notebook carries outputs
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(if $(NOTEBOOKS),$(BIN)/nbstripout --verify --keep-id $(STRIP) $(NOTEBOOKS))

format: install  ## mend what lint finds
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)
	$(if $(NOTEBOOKS),$(BIN)/nbstripout --keep-id $(STRIP) $(NOTEBOOKS))

lock:  ## write requirements.lock anew from pyproject.toml (needs uv)
	uv pip compile --universal --all-extras pyproject.toml --generate-hashes --python-version 3.11 \
	  --no-emit-index-url --no-annotate --no-header -o requirements.lock

addresses: install  ## do the download addresses of the data sets still answer?
	$(BIN)/python -m adlib data addresses

benchmark: install  ## speed and memory, each script prints a table and writes it below results/
	@set -e; for script in $(filter-out %/turns.py %/simplenet_noise.py %/same_numbers.py %/anomalib_check.py %/anomalib_sides.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python "$$script"; done

cross-check: $(RIVAL)/.installed  ## adlib beside anomalib, in an environment of its own; needs ADLIB_DATA and ADLIB_WEIGHTS
	TQDM_DISABLE=1 $(RIVAL)/bin/python benchmarks/anomalib_check.py $(CHECK)

# It borrows all of .venv, torch above all, and adds only what anomalib needs to be imported.
$(RIVAL)/.installed: $(STAMP) benchmarks/requirements.txt benchmarks/anomalib-requirements.txt
	$(BIN)/python -m venv $(RIVAL)
	$(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
	  > "$$($(RIVAL)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/project.pth"
	$(RIVAL)/bin/python -m pip install --quiet --no-deps -r benchmarks/anomalib-requirements.txt
	@touch $@

reference: install  ## the committed evidence; needs ADLIB_DATA and ADLIB_WEIGHTS, and hours
	$(BIN)/python -m adlib batch batch/reference.yml
	$(BIN)/python -m adlib batch batch/reference_ablation.yml
	$(BIN)/python -m adlib evidence

clean:  ## caches and unfinished runs; finished runs stay
	find results -name '*.partial' -prune -exec rm -rf {} +
	rm -rf .cache .pytest_cache .ruff_cache results/.snakemake results/executed/logs build *.egg-info
