# The two commands most people need:
#   make demo    install, then train a small chat model from raw text on this machine
#   make test    install, then run the test suite
#
# Options:  make demo PYTHON=python3.12        another interpreter (3.11 or newer)
#           make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
#                                              take torch from this index: the CPU build is far smaller
#           make demo ARGS="--run runs/second" more arguments for the command behind the target

VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
TORCH_INDEX ?=
ARGS ?=
export VENV

.PHONY: demo test check docs bench venv-demo venv-dev clean help

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 10

demo: venv-demo ## install, then go from raw text to a chat model (runs/demo)
	$(BIN)/groundup speedrun recipes/demo.toml $(ARGS)

test: venv-dev ## install, then run the tests (ARGS: more arguments for pytest)
	scripts/test $(ARGS)

check: venv-dev ## ruff, pyright and the folder order
	scripts/check

docs: venv-dev ## run the marked code blocks of the documents
	scripts/docs

bench: venv-dev ## training speed, side by side with transformers
	$(BIN)/python bench/train.py $(ARGS)

clean: ## remove caches and build products (runs/ and the virtual environment stay)
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find groundup tests scripts -name __pycache__ -prune -exec rm -rf {} +

venv-demo: $(VENV)/.installed-demo
venv-dev: $(VENV)/.installed-dev

# A stamp newer than pyproject.toml means that its packages are in place. The install is editable,
# so changed source needs no new install.
$(VENV)/.installed-demo: EXTRAS := demo
$(VENV)/.installed-dev: EXTRAS := dev
$(VENV)/.installed-%: pyproject.toml
	@test -n "$(PYTHON)" || { echo "groundup needs Python 3.11 or newer: install it, or name it with PYTHON=..."; exit 2; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@test -z "$(TORCH_INDEX)" || $(BIN)/pip install "torch>=2.13,<2.14" --index-url "$(TORCH_INDEX)"
	@echo "Installing groundup[$(EXTRAS)] into $(VENV) ..."
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	@touch $@
