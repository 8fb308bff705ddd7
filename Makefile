# `make help` lists the targets. Every target creates what it needs, and is safe to repeat.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup browser demo demo-all languages replicas test format bench reliability clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

setup: $(INSTALLED) ## Create .venv and install the pinned requirements

$(INSTALLED): requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed (PYTHON=... chooses one)" if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar on --no-compile -r requirements-dev.txt
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

demo: $(INSTALLED) ## Pre-train, fine-tune and evaluate on the embedded data; writes result/demo/report.html
	$(BIN)/python -m demo

demo-all: $(INSTALLED) ## Train ten tasks on embedded replicas in one model, and test each; writes result/multitask
	$(BIN)/python -m demo.multitask

languages: $(INSTALLED) ## Train and test retrieval and translation in four languages; writes result/languages
	$(BIN)/python -m demo.languages

test: $(INSTALLED) browser ## Checks of style and types, and the whole test suite
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

format: $(INSTALLED) ## Format the code and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED) ## Time the pre-training step of base size (BENCHMARKS.md has more)
	$(BIN)/python -m benchmarks.step

reliability: $(INSTALLED) ## Kills, damaged files, hostile inputs: half an hour; writes result/reliability.json
	$(BIN)/python -m tests.reliability

clean: ## Remove .venv and caches; data/ and result/ stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
