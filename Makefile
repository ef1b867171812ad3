# `make demo` and `make test` do all of their own set-up on a fresh Debian machine; see docs/en/testing.md.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup test lint unit package molecule molecule-2.19 molecule-2.21 bench test-element demo demo-down lock clean

CORES := 2.19 2.21

help:
	@echo "make demo          one demo cooperative in a container (demo-down removes it)"
	@echo "make test          lint, unit tests, package, Molecule with ansible-core $(CORES): what CI runs"
	@echo "make lint | unit | package | molecule | molecule-2.19 | molecule-2.21   its parts"
	@echo "make test-element ELEMENT_WEB_RELEASE=element-v….tar.gz   the checks that need the real client"
	@echo "make bench         figures, as JSON and as a table"
	@echo "make lock          pin the development requirements anew"
	@echo "make clean         remove environments, images and containers of ours"

setup:
	@tests/setup engine venv-2.19 venv-2.21 collection venv-synapse prepared

test:
	@tests/run

lint unit package molecule molecule-2.19 molecule-2.21:
	@tests/run $@

bench: setup
	@bench/run

test-element:
	@MATRIX_SETUP_BROWSER=1 tests/setup engine venv-2.19 collection base
	@PATH="$(CURDIR)/.venv-2.19/bin:$$PATH" tests/browser/record

demo:
	@tests/setup engine venv-2.19 collection base
	@tests/demo up

demo-down:
	@tests/demo down

lock:
	@tests/lock

clean:
	@tests/clean
	@rm -rf .venv-2.19 .venv-2.21 .cache .ansible .mypy_cache .pytest_cache .ruff_cache .hypothesis
