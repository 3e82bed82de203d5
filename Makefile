# Needs Python 3.11 or newer, git and make; the rest goes into .venv, once.
#   make demo     a table and a site in minutes, on generated images
#   make test     all tests; some of them: make test ARGS="-k loader"
#   make lint     style, format, types
#   make dev-slurm  a real Slurm on this machine (Debian, Ubuntu)
#   make clean    removes .venv, caches and drawn tables; runs/ stays

PYTHON ?= $(shell for python in python3.11 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
DEMO := random,random-rescaled,supervised,rotation,jigsaw,split-brain
READY := .venv/.ready

.PHONY: demo test lint dev-slurm setup clean

demo: $(READY)
	$(BIN)/bench reproduce imagenet-linear --suite demo --methods $(DEMO) --out demo $(ARGS)
	$(BIN)/bench site --out demo/site

test: $(READY)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile $(ARGS)

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

dev-slurm:
	slurm/dev/dev-slurm.sh install
	slurm/dev/dev-slurm.sh up

setup: $(READY)

# The stamp comes last, so an interrupted set-up is taken up again. What pip was writing at that moment has no RECORD
# yet, and would pass for installed: it goes first.
$(READY): pyproject.toml setup.py constraints.txt
	@python='$(PYTHON)'; if ! $${python:-false} -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "Python 3.11 or newer is needed: install it, or name one: make PYTHON=/path/to/python3.11" >&2; exit 1; \
	elif ! $$python -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "$$python lacks venv: install it (on Debian and Ubuntu: the package python3-venv)" >&2; exit 1; fi
	@echo "Setting up .venv: about 6 GB, and some minutes the first time"
	@for info in .venv/lib/python*/site-packages/*.dist-info; do [ -f "$$info/RECORD" ] || rm -rf "$$info"; done
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[engines,dev]'
	$(BIN)/bench install detectron2
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
