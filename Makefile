# Needs only Python >= 3.11 (with venv) and make: every target sets up what it needs in .venv and remembers it in a stamp.
#   make demo        the main job on real images; installs the light JAX stack only
#   make check       lint, types, the core of the tests and those of what differs from main: two minutes
#   make test        the whole suite, on JAX, TensorFlow and PyTorch
#   make test-slow   what is too slow for that, with a summary: hours
#   make test-versions  the core of the suite with the oldest and newest releases allowed; Pythons 3.11 to 3.13, 8 GB each
#   make lint        ruff and mypy
#   make docs        the documentation site, in build/docs: nothing broken, nothing loaded from elsewhere
#   make constraints write constraints/tested.txt anew from .venv, after a deliberate upgrade
#   make clean       remove .venv, .venv-versions, caches and the demonstration's run

PYTHON ?= python3
BIN := .venv/bin
SETTINGS := pyproject.toml constraints/tested.txt
PIP_INSTALL := $(BIN)/pip install -qq --disable-pip-version-check --constraint constraints/tested.txt --editable
# A process a core, 4 GB each; a file's tests stay together, since they share what they have translated,
# and files come in the order of tests/longest.txt: by number of tests, the few long ones would come last, on one core.
PYTEST := $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: help demo check test test-slow test-versions lint docs constraints clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^#   //p' Makefile

demo: .venv/demo.stamp
	$(BIN)/multitl demo --out runs/demo --overwrite

test: .venv/test.stamp
	KERAS_BACKEND=jax $(PYTEST) -m "not slow"
	KERAS_BACKEND=tensorflow $(PYTEST) -m "every_backend and not slow"
	KERAS_BACKEND=torch $(PYTEST) -m "every_backend and not slow"

check: lint
	KERAS_BACKEND=jax $(PYTEST) -m "not slow" $$($(BIN)/python tests/selection.py)

test-slow: .venv/test.stamp
	$(BIN)/python tests/slow_runs.py

test-versions:
	@$(PYTHON) tests/versions.py

lint: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/docs.stamp
	$(BIN)/python docs/build_site.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "multitl needs Python >= 3.11; say make PYTHON=python3.11")'
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.venv/demo.stamp: $(SETTINGS) | $(BIN)/python
	@echo "Installing multitl with JAX into .venv: about a minute, 1 GB"
	@$(PIP_INSTALL) '.[demo]'
	@touch $@

.venv/test.stamp: $(SETTINGS) | $(BIN)/python
	@echo "Installing multitl with JAX, TensorFlow, PyTorch and the test tools into .venv: about two minutes, 4 GB"
	@$(PIP_INSTALL) '.[test]'
	@touch $@ .venv/demo.stamp .venv/docs.stamp

.venv/docs.stamp: $(SETTINGS) | $(BIN)/python
	@$(PIP_INSTALL) '.[docs]'
	@touch $@

# Direct dependencies, and what decides how they compute. "+cpu" goes: "torch==2.13.0" takes either build.
constraints:
	@{ sed -n '/^#/p' constraints/tested.txt; \
	   $(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//' | grep -iE \
	   '^(ai[-_]edge[-_]litert|efficientnet[-_a-z0-9]*|elpv[-_]dataset|fsspec|furo|h5py|hypothesis|ipykernel|jax|jaxlib|jinja2|keras|matplotlib|ml[-_]dtypes|msgspec|mypy|myst[-_]parser|nbclient|numpy|onnx|onnxruntime|onnxscript|openvino|orbax[-_]checkpoint|pandas|pillow|platformdirs|polars|protobuf|pyarrow|pydicom|pytest|pytest[-_]xdist|python[-_]multipart|ray|rich|ruff|safetensors|scikit[-_]image|scikit[-_]learn|scipy|sphinx|starlette|tensorboardx|threadpoolctl|tifffile|tensorflow([-_]cpu)?|timm|torch|torchvision|uvicorn)==' ; \
	   $(BIN)/pip freeze | sed -n 's/^tensorflow[-_]cpu==/tensorflow==/p'; } > constraints/new.txt
	@mv constraints/new.txt constraints/tested.txt

clean:
	rm -rf .venv .venv-versions .pytest_cache .mypy_cache .ruff_cache .hypothesis build/docs runs/demo runs/demo-labels.csv
