# All do their own set-up on a fresh Debian machine; see docs/en/testing.md. What they do is written in noxfile.py.
SHELL := /bin/bash
.DEFAULT_GOAL := help
NOX := .cache/nox/bin/nox
SOME := lint unit synapse package molecule molecule-2.19 molecule-2.21
SESSIONS := sanity docs-check build-import-check extra-checks license-check changelog yamllint ruff mypy ansible-lint mutants lock forges
.PHONY: help setup test test-all bench release test-element demo demo-down clean $(SOME) $(SESSIONS)

help:
	@echo "make demo          one demo cooperative in a container (demo-down removes it)"
	@echo "make unit TEST=tests/unit/test_instance.py   one file, within a minute, without Docker (ARGS: more for pytest)"
	@echo "make test          all parts of docs/en/testing.md: what CI runs (PARTS='gate unit-2.19': these)"
	@echo "make test-all      the same, every scenario with every core on every Debian"
	@echo "make $(SOME)   some of its parts"
	@echo "make $(SESSIONS)   single checks"
	@echo "make test-element ELEMENT_WEB_RELEASE=element-v….tar.gz   the checks that need the real client"
	@echo "make bench         figures, as JSON and as a table"
	@echo "make release VERSION=0.2.0   changelog, commit, tag and tarball; nothing is pushed"
	@echo "make lock          pin all requirements anew"
	@echo "make clean         remove environments, images and containers of ours"

$(NOX): requirements-nox.txt
	@tests/setup nox

test test-all: $(NOX)
	@$(NOX) -s $@ -- $(PARTS)

unit: $(NOX)
	@$(NOX) -s $(if $(TEST)$(ARGS),unit -- $(TEST) $(ARGS),test -- unit)

$(filter-out unit,$(SOME)): $(NOX)
	@$(NOX) -s test -- $@

$(SESSIONS): $(NOX)
	@tests/setup venv-2.19 collection
	@$(NOX) -s $@ -- $(ARGS)

setup:
	@tests/setup engine venv-2.19 venv-2.21 collection venv-synapse browser prepared

bench: setup
	@bench/run

release: $(NOX)
	@tests/setup venv-2.19 collection
	@$(NOX) -s release -- $(VERSION)

test-element:
	@tests/setup engine venv-2.19 collection browser base
	@PATH="$(CURDIR)/.venv-2.19/bin:$$PATH" tests/browser/record

demo:
	@tests/setup engine venv-2.19 collection base
	@tests/demo up

demo-down:
	@tests/demo down

clean:
	@tests/clean
	@rm -rf .venv-2.19 .venv-2.21 .cache .ansible .mypy_cache .pytest_cache .ruff_cache .hypothesis
