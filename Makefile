# make demo and make test set up all they need: Python 3.11 and pip are enough.
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/ready

.PHONY: setup demo check test gpu soak bench docs

setup: $(READY)

$(READY): pyproject.toml constraints.txt hatch_build.py $(wildcard src/resnetkit/kernels/cpp/*)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

demo: $(READY)
	$(BIN)/resnetkit demo --overwrite

check: $(READY)
	$(BIN)/ruff format --check src tests bench
	$(BIN)/ruff check src tests bench
	$(BIN)/mypy
	$(BIN)/pytest tests/test_house.py

# two processes of a thread each: tiny networks gain nothing from a second thread
test: check
	OMP_NUM_THREADS=1 RESNETKIT_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

# where there is a GPU, which the other tests do not see
gpu: $(READY)
	RESNETKIT_TEST_GPU=1 $(BIN)/pytest tests/training/test_device.py tests/training/test_graphs.py

# what takes too long for every commit: ten times as many cases of the fuzzer, a server under load, and our kernels under
# the sanitizers of the C++ compiler, shapes at random
soak: $(READY)
	RESNETKIT_CASES=2000 $(BIN)/pytest tests/serving/test_documents.py --timeout 3600
	$(BIN)/python bench/serve.py
	$(BIN)/python tests/kernels/soak.py

bench: $(READY)
	$(BIN)/python bench/train_step.py --size 64 --batch 32
	$(BIN)/python bench/train_step.py --size 224 --batch 16
	$(BIN)/python bench/load.py
	$(BIN)/python bench/predict.py --count 200
	$(BIN)/python bench/check.py
	$(BIN)/python bench/scale.py
	$(BIN)/python bench/kernels.py network
	$(BIN)/python bench/kernels.py step

docs: $(READY)
	$(BIN)/python docs/paper/gradients.py
	$(BIN)/python docs/make_settings.py > docs/settings.md
