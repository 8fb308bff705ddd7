# `make help` lists the targets. Every target creates what it needs, and is safe to repeat.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TOOLS := build/tools

unexport PYTHONDONTWRITEBYTECODE
# Chromium comes while pip installs, and types are checked beside the tests, which wait now and then.
MAKEFLAGS += --jobs=2

.DEFAULT_GOAL := help
.PHONY: help setup browser demo demo-all languages replicas test style types suite offline-test lowest lock sbom format bench gpu reliability clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: $(INSTALLED) ## Create .venv and install the pinned requirements

$(INSTALLED): requirements.txt requirements-dev.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed (PYTHON=... chooses one)" if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar on --no-compile -r requirements-dev.txt -c constraints.txt
	@# Python compiles what is imported, once; pip would compile everything, which takes 20 s more.
	$(BIN)/python -c 'import vlc.training.run, main_finetune'
	@touch $@

browser: ## Install Chromium, in which the tests look at the page (on Debian, as root)
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { \
		[ "$$(id -u)" = 0 ] && grep -qs '^ID=debian' /etc/os-release && apt-get -qq update && \
		DEBIAN_FRONTEND=noninteractive apt-get -qq --yes --no-install-recommends install chromium >/dev/null; } || \
		echo "No Chromium is here, and the tests of the page are skipped without it (on Debian: apt-get install chromium)"

replicas: $(INSTALLED) ## Fine-tune the tasks on embedded replicas, and test what the models rely on; writes result/replicas
	$(BIN)/python -m demo.replicas

demo: $(INSTALLED) ## Pre-train, fine-tune VQA and evaluate on the embedded data; writes result/demo/report.html
	$(BIN)/python -m demo

demo-all: $(INSTALLED) ## The demo with its other tasks, then ten tasks in one model; writes result/demo and result/multitask
	$(BIN)/python -m demo --all
	$(BIN)/python -m demo.multitask --pretrained "$$(cat result/demo/pretrained.txt)"

languages: $(INSTALLED) ## Train and test retrieval and translation in four languages; writes result/languages
	$(BIN)/python -m demo.languages

test: style types suite ## Checks of style and types, and the whole test suite

style: $(INSTALLED)
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .

types: $(INSTALLED)
	@$(BIN)/mypy --no-error-summary

suite: $(INSTALLED) browser
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

offline-test: $(INSTALLED) ## The test suite where no network is (Linux; a network namespace with nothing but this machine)
	unshare --map-root-user --net sh -c 'ip link set lo up && exec $(BIN)/python -m pytest --numprocesses 2 --dist loadfile'

$(TOOLS)/bin/uv:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet uv==0.13.9 cyclonedx-bom==7.5.0

lowest: $(TOOLS)/bin/uv ## The test suite with the lowest versions that pyproject.toml admits, in build/lowest
	$(TOOLS)/bin/uv pip compile --quiet --resolution lowest-direct --python $(PYTHON) -c constraints.txt \
		--extra search --extra moses --extra explain --extra serve pyproject.toml -o build/lowest.txt
	$(PYTHON) -m venv build/lowest
	grep -E '^(pytest|pytest-xdist|hypothesis|httpx)==' requirements-dev.txt > build/lowest-tests.txt
	build/lowest/bin/python -m pip install --quiet -r build/lowest.txt -r build/lowest-tests.txt
	build/lowest/bin/python -m pytest --numprocesses 2 --dist loadfile

lock: $(TOOLS)/bin/uv ## Write locks/: versions and hashes of every package
	$(TOOLS)/bin/python scripts/lock.py $(TOOLS)/bin/uv

sbom: $(TOOLS)/bin/uv ## Write build/sbom.cdx.json, the list of the locked packages (CycloneDX)
	cat locks/base.txt locks/torch.txt | $(TOOLS)/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
		--validate -o build/sbom.cdx.json -

format: $(INSTALLED) ## Format the code and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED) ## Time the pre-training step of base size (BENCHMARKS.md has more)
	$(BIN)/python -m benchmarks.step

gpu: ## Check and measure on one GPU, 9 minutes (docs/hardware.md; GPU_OPTIONS=...); writes result/gpu.json
	mkdir -p result
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m benchmarks.gpu --json result/gpu.json $(GPU_OPTIONS)

reliability: $(INSTALLED) ## Kills, damaged files, hostile inputs: half an hour; writes result/reliability.json
	$(BIN)/python -m tests.reliability

clean: ## Remove .venv and caches; data/ and result/ stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
