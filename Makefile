# Each target sets itself up: a virtual environment in .venv, then the work.
# PYTHON chooses the interpreter, e.g. `make test PYTHON=python3.12`.

PYTHON ?= python3
# Grouped heads, 80 layers, a window, 5 windows to 1 global, window and sinks, latent, hybrid.
GPU_MODELS ?= meta-llama/Llama-3.1-8B meta-llama/Llama-2-70b mistralai/Mistral-7B-v0.1 google/gemma-3-27b-it \
	openai/gpt-oss-120b deepseek-ai/DeepSeek-V3 Qwen/Qwen3-Next-80B-A3B-Instruct
BIN := .venv/bin

.PHONY: run test lint bench gpu notebooks clean

run: .venv/.run  ## the main job, from the offline catalog
	$(BIN)/kvplan estimate meta-llama/Llama-2-70b --seq 4096

test: .venv/.dev  ## the whole test suite
	$(BIN)/python -m pytest -n auto

lint: .venv/.dev  ## style, types, walls
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.dev  ## cold start and sweep, on this machine
	$(BIN)/python benchmarks/cold_start.py
	$(BIN)/python benchmarks/sweep.py

# Ten minutes: neither starts anything new after its own share of them.
gpu: .venv/.gpu  ## on this machine's GPU: the kernels, right and how fast; prediction against measurement; writes records
	$(BIN)/python -m kvplan.validate.suite --minutes 3
	$(BIN)/kvplan validate --full --variants --minutes 6 --save --out gpu-records $(GPU_MODELS)

notebooks: .venv/.dev  ## execute the notebooks in place
	$(BIN)/python -m tests.test_notebooks

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.run: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/.gpu: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[gpu]'
	touch $@ .venv/.run

# constraints.txt pins what the tests run with (a CPU build of torch); users are not bound by it.
.venv/.dev: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@ .venv/.run

clean:
	rm -rf .venv
