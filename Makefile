# Needs Python 3.11 or newer and make; everything else is installed into .venv.

PYTHON ?= python3
UV ?= uv
BIN := .venv/bin

# Compiled once for all the processes that the tests start, also where somebody has switched that off.
unexport PYTHONDONTWRITEBYTECODE

LITELLM := 1.106.0
BUILT := bench/.build
COMPILE := $(CC) -O2 -Wall -Wextra -std=gnu11

.PHONY: help setup demo test check docs bench dist sbom lock clean

help:
	@echo "make demo    serve the gateway in front of a simulated K2-Think (PORT=8001)"
	@echo "make setup   install what the gateway needs into .venv"
	@echo "make test    run the tests"
	@echo "make check   lint, formatting and types"
	@echo "make docs    renew docs/configuration.md"
	@echo "make bench   measure the gateway (Linux, needs cc; see bench/README.md)"
	@echo "make dist    build the packages for PyPI into dist"
	@echo "make sbom    write what the gateway is made of, as CycloneDX JSON, into dist"
	@echo "make lock    renew requirements.txt, -dev.txt and -build.txt (needs uv)"
	@echo "make clean   remove .venv and all caches"
	@echo "PYTHON=python3.12 chooses the interpreter for .venv."

setup: .venv/runtime.stamp

demo: setup
	@PYTHONPATH=src $(BIN)/python -m k2think demo --port $(or $(PORT),8001)

test: .venv/dev.stamp
	@$(BIN)/python -m pytest -n auto

check: .venv/dev.stamp
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: setup
	@PYTHONPATH=src $(BIN)/python -m k2think.settings.reference >docs/configuration.md

bench: setup $(BUILT)/upstream $(BUILT)/load $(if $(PEERS),bench/.peers/litellm-$(LITELLM).stamp)
	@$(BIN)/python -m bench --rounds $(or $(ROUNDS),3) --seconds $(or $(SECONDS),3) --answers $(or $(ANSWERS),0) \
	  $(if $(ONLY),--only $(ONLY)) $(if $(SOAK),--soak $(SOAK)) $(if $(PEERS),--peers bench/.peers)

$(BUILT)/%: bench/%.c $(wildcard bench/*.h)
	@mkdir -p $(BUILT)
	$(COMPILE) -o $@ $<

# In an environment of its own: its dependencies are not ours, and so many that pip takes many minutes to choose among them.
bench/.peers/litellm-$(LITELLM).stamp:
	@mkdir -p bench/.peers
	$(PYTHON) -m venv --clear bench/.peers/litellm
	bench/.peers/litellm/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"
	bench/.peers/litellm/bin/uv pip install --quiet --compile-bytecode --python bench/.peers/litellm "litellm[proxy]==$(LITELLM)" uvloop
	@touch $@

dist: .venv/build.stamp
	@rm -f dist/k2think-*.whl dist/k2think-*.tar.gz
	$(BIN)/python -m hatchling build -d dist

sbom: .venv/python.stamp
	@mkdir -p dist
	$(BIN)/python tools/sbom.py >dist/k2think.cdx.json

lock:
	$(UV) pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -q \
	  -o requirements.txt
	$(UV) pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -q \
	  --group dev -c requirements.txt -o requirements-dev.txt
	$(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -q \
	  --group build -c requirements-dev.txt -o requirements-build.txt

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist bench/.build bench/.peers
	find src tests bench -type d -name __pycache__ -prune -exec rm -rf {} +

.venv/python.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed. Name one, such as: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@touch $@

.venv/runtime.stamp: requirements.txt .venv/python.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --require-hashes -r requirements.txt
	@touch $@

.venv/dev.stamp: requirements-dev.txt .venv/python.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --require-hashes -r requirements-dev.txt
	@touch $@

.venv/build.stamp: requirements-build.txt .venv/python.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --require-hashes -r requirements-build.txt
	@touch $@
