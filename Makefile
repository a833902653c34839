# From a bare checkout: `make demo` and `make test` do everything they need by themselves.
# Only the first run installs (about 4 minutes, 7 GB: torch brings its CUDA libraries).

FITS    := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
# The first that runs and fits: a version manager's shim may be on PATH and still refuse.
PYTHON  ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)
VENV    := .venv
BIN     := $(VENV)/bin
UV      := $(BIN)/uv
STAMP   := $(VENV)/.installed
PYTEST  := $(BIN)/python -m pytest
# Files beside one another on as many cores as there are; the end-to-end tests have the machine to themselves.
BESIDE  := --ignore tests/e2e -n auto --maxprocesses 4 --dist loadfile

# Where the environment forbids bytecode, every start of a command would compile its libraries anew: seconds, not milliseconds.
export PYTHONDONTWRITEBYTECODE :=
# mosquitto lies in /usr/sbin, which is off a normal user's PATH.
export PATH := $(PATH):/usr/sbin

.PHONY: help install demo test test-all lint bench screenshots deb arm64-check lock clean

help:            ## what there is to make
	@grep -E '^[a-z0-9-]+: .*##|^[a-z0-9-]+: +##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

install: $(STAMP) ## virtual environment with the pinned set

$(STAMP): requirements/dev.txt requirements/bootstrap.txt requirements/stubs.txt requirements/stubs.sed pyproject.toml
	@"$(PYTHON)" -c '$(FITS)' 2>/dev/null \
	  || { echo "edgewright needs Python 3.11 to 3.13; name one: make PYTHON=/path/to/python3.11 ..." >&2; exit 5; }
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements/dev.txt
# Without its dependencies: they are TensorRT itself, which no package index has.
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes --no-deps --reinstall -r requirements/stubs.txt
	sed -i.orig -f requirements/stubs.sed $(VENV)/lib/python3.*/site-packages/tensorrt_bindings/tensorrt.pyi
# One left by an earlier build shadows the entry points of the new one for whatever runs in this folder.
	rm -rf edgewright.egg-info
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)   ## the whole way through, told as a story; KEEP=1 leaves it running
	@sh requirements/system.sh mosquitto
	@$(BIN)/python -m benchmarks.demo $(if $(KEEP),--keep)

test: lint       ## the everyday suite: end-to-end and browser tests included
	@sh requirements/system.sh mosquitto chromium strace
	$(PYTEST) -m "not slow and not gpu" $(BESIDE)
	$(PYTEST) -m "not slow and not gpu" tests/e2e

test-all: lint   ## everything, the long ones too
	@sh requirements/system.sh mosquitto chromium strace
	$(PYTEST) $(BESIDE)
	$(PYTEST) tests/e2e

lint: $(STAMP)   ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(STAMP)  ## the figures of docs/figures.md, as a table and as JSON
	@sh requirements/system.sh mosquitto
	@$(BIN)/python -m benchmarks

screenshots: $(STAMP) ## the README's pictures, from a real run
	@sh requirements/system.sh mosquitto chromium
	@$(BIN)/python -m benchmarks.screenshots

deb: $(STAMP)    ## Debian package of the device runtime, in dist/; ARCH=arm64, FOR=3.13 (the device's Python)
	@$(BIN)/python -m runtime.packaging.build_deb --arch $(or $(ARCH),amd64) --python $(or $(FOR),3.11)

arm64-check: $(STAMP) ## the arm64 package under qemu: its outputs against this machine's
	@command -v qemu-aarch64-static >/dev/null || sh requirements/system.sh qemu-user-static
	@sh requirements/system.sh mmdebstrap
	@$(BIN)/python -m benchmarks.arm64

proto: $(STAMP)  ## runtime/serving/grpc/descriptor.py from inference.proto
	$(BIN)/python -m runtime.serving.grpc.generate

lock: $(STAMP)   ## renew requirements/*.txt from pyproject.toml
	cd requirements && for set in device dev; do \
	  case $$set in device) extras="--extra onnxruntime";; \
	    dev) extras="--extra onnxruntime --extra openvino --extra grpc --extra toolchain --extra fleet --extra loadgen --extra dev";; esac; \
	  ../$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --custom-compile-command "make lock" $$extras ../pyproject.toml -o $$set.txt || exit 1; done
	cd requirements && echo 'uv>=0.5' | ../$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --custom-compile-command "make lock" - -o bootstrap.txt
	cd requirements && echo 'tensorrt-stubs>=10.13,<11' | ../$(UV) pip compile --quiet --universal --python-version 3.11 \
	    --generate-hashes --no-deps --no-emit-index-url --custom-compile-command "make lock" - -o stubs.txt

clean:           ## what tests and the demo leave; not the environment
	rm -rf .demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
