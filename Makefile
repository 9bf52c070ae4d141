# edgefl: `make demo` runs the main job, `make test` passes the tests; both set everything up first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
WS := .venv/bin/python
DEV := .venv-device/bin/python
PIP_FLAGS := --quiet --disable-pip-version-check
DEVICE_TESTS := tests/bundle tests/delta tests/graph tests/runtime tests/cli tests/house
DEMO_EXTRAS := keras,ort-training,tflite,zstd,server,cli,sim
WS_INPUTS := pyproject.toml constraints/workstation.txt
DEV_INPUTS := pyproject.toml constraints/device.txt
# Two test processes, each on one core: a third would need memory for another TensorFlow.
TEST_WORKERS ?= 2
SIDE_BY_SIDE := -n $(TEST_WORKERS) --dist worksteal
ONE_CORE_EACH := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1

.PHONY: help setup demo test test-all check format bench docs links clean device wheels boards fuzz

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

setup: .venv/.ready-all .venv-device/.ready links  ## both environments, complete

demo: .venv/.ready-demo .venv-device/.ready links  ## the main job: convert, train on 16 devices, aggregate
	$(WS) -m edgefl demo --device-python $(DEV) $(DEMO_ARGS)

test: setup  ## the test suite, in the workstation and in the device environment
	@status=0; \
	$(ONE_CORE_EACH) EDGEFL_DEVICE_PYTHON=$(CURDIR)/$(DEV) \
	  $(WS) -m pytest -q $(SIDE_BY_SIDE) --cov --cov-report=term $(TEST_ARGS) || status=$$?; \
	$(DEV) -m pytest -q -m 'device and not slow' $(DEVICE_TESTS) || status=$$?; \
	exit $$status

test-all: setup  ## the same with the slow matrices, and under the BLAS kernels of other processors
	@status=0; \
	$(ONE_CORE_EACH) EDGEFL_DEVICE_PYTHON=$(CURDIR)/$(DEV) \
	  $(WS) -m pytest -q $(SIDE_BY_SIDE) -m '' $(TEST_ARGS) || status=$$?; \
	$(DEV) -m pytest -q -m device $(DEVICE_TESTS) || status=$$?; \
	EDGEFL_DEVICE_PYTHON=$(CURDIR)/$(DEV) $(WS) scripts/kernels.py -- $(SIDE_BY_SIDE) $(TEST_ARGS) || status=$$?; \
	exit $$status

check: .venv/.ready-all links  ## ruff and mypy --strict
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy edgefl benchmarks

format: .venv/.ready-all
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: setup  ## regenerate the figures in the README and docs (takes a while)
	$(WS) -m benchmarks

docs: setup  ## check that every code block of the README and docs runs
	$(WS) -m pytest -q -m '' tests/docs

device:  ## dist/edgefl-device.pyz: one file that runs `edgefl device`, given Python and NumPy
	@$(PYTHON) scripts/device.py pyz dist

wheels:  ## dist/: the whole distribution, and the device's part of it
	@$(PYTHON) -m pip wheel $(PIP_FLAGS) --no-deps -w dist .
	@$(PYTHON) scripts/device.py wheel dist

boards: .venv/.ready-all  ## train on emulated Raspberry Pis, 64 and 32 bits; skipped with its reason offline
	@PYTHON=$(CURDIR)/$(WS) sh scripts/aarch64.sh build/aarch64 all

fuzz: setup .venv-fuzz/.ready  ## strangers at the server's door, for half an hour
	$(WS) -m benchmarks.fuzz $(FUZZ_ARGS)

links:
	@for d in converters runtime server_stub; do [ -e edgefl/$$d ] || ln -s ../$$d edgefl/$$d; done

clean:
	rm -rf .venv .venv-device .venv-fuzz build dist demo-out edgefl/converters edgefl/runtime edgefl/server_stub

# Each stamp says which packages its environment holds; the full one includes the demo's.
.venv/bin/python:
	sh scripts/venv.sh $(PYTHON) .venv

.venv-device/bin/python:
	sh scripts/venv.sh $(PYTHON) .venv-device

.venv/.ready-demo: $(WS_INPUTS) | .venv/bin/python
	@echo 'Installing what the demo needs into .venv (about 1 GB, a few minutes the first time) ...'
	$(WS) -m pip install $(PIP_FLAGS) -c constraints/workstation.txt -e '.[$(DEMO_EXTRAS)]'
	@touch $@

.venv/.ready-all: $(WS_INPUTS) | .venv/bin/python
	@echo 'Installing the workstation environment into .venv (about 3 GB, several minutes the first time) ...'
	$(WS) -m pip install $(PIP_FLAGS) -c constraints/workstation.txt -e '.[all,dev]'
	@touch $@ .venv/.ready-demo

.venv-device/.ready: $(DEV_INPUTS) | .venv-device/bin/python
	@echo 'Installing the device environment into .venv-device ...'
	$(DEV) -m pip install $(PIP_FLAGS) -c constraints/device.txt -e '.[onnx,tflite,openvino,zstd,cli,test]'
	@touch $@

# In an environment of its own: schemathesis would be a plugin of every test run.
.venv-fuzz/.ready: constraints/fuzz.txt
	sh scripts/venv.sh $(PYTHON) .venv-fuzz
	.venv-fuzz/bin/python -m pip install $(PIP_FLAGS) -c constraints/fuzz.txt schemathesis
	@touch $@
