# EKS image prefetch: every command a person or CI runs. `make help` lists them.

TOOLS  := .tools/venv
export PATH := $(CURDIR)/.tools/bin:$(CURDIR)/$(TOOLS)/bin:$(PATH)
export SAM_CLI_TELEMETRY := 0
SHELL  := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

FUNCTION ?= ImagePush
EVENT    ?= events/image-push.tagged.json
STACK    ?= eks-image-prefetch
ARCHITECTURE := x86_64
export INPUT ?= {}
export CONFIG_ENV ?= default
export PARAMETERS ?=

.PHONY: help
help: ## Lists the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: tools local ## Deploys on a local cloud, pushes an image, launches a node, shows both warm
	@python -m local.make.demo

# Where nothing builds the nodes' program for the other processor, this machine's alone is tested.
test: export NODE_PROGRAM := incomplete

.PHONY: test
test: ## Runs everything: lints, unit tests, the deployed stack on real containerd
	@$(MAKE) --no-print-directory tools
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target unit build scripts
	@$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=$(or $(FUZZ_SECONDS),5)
	pytest tests

.PHONY: lint
lint: clippy scripts ## Checks format, lints, template, scripts

# Lints, tests and rustdoc's warnings come from one compilation: clippy's driver compiles our own crates, rustc those below
# them, and .cargo/rustc-wrapper has rustdoc read what clippy has linted.
clippy unit orders: export RUSTC_WORKSPACE_WRAPPER := clippy-driver
clippy unit orders: export CLIPPY_ARGS := -D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__
clippy unit orders: export DOCUMENT := yes

.PHONY: clippy
clippy:
	cargo fmt --check
	cargo build --locked --workspace --all-targets

.PHONY: scripts
scripts: tools
	ruff check local tests benches verify docs
	ruff format --check local tests benches verify docs
	shellcheck .cargo/rustc-wrapper node/fuzz/run ssm/*.sh local/install-node-tools .ci/run examples/prefetch-and-wait \
		examples/boot/boot.sh examples/quickstart/make-image examples/quickstart/pod-start-seconds \
		.ci/notes .ci/package .ci/sbom
	sam validate --lint
	cfn-lint template.yaml examples/bake/node-group.yaml examples/warm-pool/node-group.yaml \
		examples/central-registry/cluster.yaml examples/central-registry/registry.yaml

.PHONY: unit
unit: clippy ## Lints and tests the Rust code, its documentation included
	cargo test --locked --workspace

.PHONY: orders
orders: ## Explores every order of events that a node with retries may meet, which takes long, and tells how many there are
	ORDERS_STATES=100000000 cargo test --locked --package node-result explored -- --nocapture | grep -v '^{'

.PHONY: fuzz
fuzz: ## Fuzzes each parser of what comes to nodes from outside for FUZZ_SECONDS (60; 5 in make test)
	node/fuzz/run $(or $(FUZZ_SECONDS),60)

.PHONY: e2e
e2e: tools local program ## Runs the document on real containerd, the local cloud, and the deployed stack on it
	pytest tests

# Where tests look for what nodes run; `unit` leaves it there too.
.PHONY: program
program:
	cargo build --locked --package prefetch-images

# cargo compiles all functions side by side, sam build alone would do so one after the other; it finds them made.
.PHONY: build
build: $(TOOLS)/.ready ## Builds the functions as they are deployed (sam build), for ARCHITECTURE (x86_64, arm64)
	cargo lambda build --locked --release $(if $(filter arm64,$(ARCHITECTURE)),--arm64)
	sam build $(if $(filter arm64,$(ARCHITECTURE)),--parameter-overrides Architecture=arm64)

# In a folder of its own, so that no later sam deploy takes it to an account.
.PHONY: local
local: $(TOOLS)/.ready ## Builds the functions quickly, unoptimised, for the local cloud
	NODE_PROGRAM=quick cargo lambda build --locked
	NODE_PROGRAM=quick SAM_BUILD_MODE=debug sam build --build-dir .aws-sam/local

demo e2e invoke cloud play record faults: export BUILD_DIR := .aws-sam/local

.PHONY: document
document: tools ## Writes the Command document anew from its bootstrap
	python -m local.make.document

.PHONY: docs
docs: $(TOOLS)/.ready ## Writes what pages have from the template and the state machine anew
	python docs/generator

# From time to time, by hand: the minutes that are recorded are others each time.
.PHONY: record
record: tools local ## Records on a local cloud what the picture of the dashboard shows, and draws it
	python docs/generator/record.py
	@$(MAKE) --no-print-directory docs

.PHONY: reproducible
reproducible: tools ## Builds the nodes' program twice, in two folders, and compares the bytes
	python -m local.make.reproducible

.PHONY: check
check: $(TOOLS)/.ready ## Says what a deployment with samconfig.toml and PARAMETERS would do, or why not; no account
	@python -m local.make.check

.PHONY: deploy
deploy: stack-name build ## Deploys to AWS with PARAMETERS and the section CONFIG_ENV, asking for the rest (sam deploy --guided)
	sam deploy --guided --config-env "$$CONFIG_ENV" $(if $(PARAMETERS),--parameter-overrides "$$PARAMETERS")

.PHONY: stack-name
stack-name: $(TOOLS)/.ready
	@python -m local.make.stack_name

# Nothing but the answer goes to stdout.
.PHONY: invoke
invoke: ## Replays EVENT through FUNCTION, deployed on a local cloud with PARAMETERS
	@$(MAKE) --no-print-directory tools local >&2
	@python -m local.make.invoke $(FUNCTION) $(EVENT)

.PHONY: bake
bake: ## Bakes snapshots by the deployed STACK, and waits for the end
	@$(MAKE) --no-print-directory $(TOOLS)/.ready >&2
	@python -m local.make.bake '$(STACK)' "$$INPUT"

# What comes from the environment alone is not meant: a pipeline may have a REPOSITORY of its own.
GIVEN = $(if $(filter command line,$(origin $(1))),$(2) '$($(1))')

.PHONY: verify
verify: $(TOOLS)/.ready ## Tells what of the deployed STACK works, and why where it does not
	@python -m verify '$(STACK)' $(call GIVEN,REPOSITORY,--repository) $(call GIVEN,WAIT_SECONDS,--wait-seconds)

.PHONY: cloud
cloud: tools ## Runs a local cloud until Ctrl-C, and says how to play with it
	@python -m local up --guide

.PHONY: play
play: $(TOOLS)/.ready ## Does something on the cloud that make cloud runs: DO=launch, DO='push team/app:v1', DO=shell …
	@python -m local.make.play $(DO)

.PHONY: produce
produce: $(TOOLS)/.ready ## Sends EVENTS events of a KIND to the deployed STACK, PER_SECOND, with a share of DUPLICATES
	@python -m local.make.produce '$(STACK)' $(call GIVEN,KIND,--kind) $(call GIVEN,EVENTS,--events) \
		$(call GIVEN,PER_SECOND,--per-second) $(call GIVEN,DUPLICATES,--duplicates) \
		$(call GIVEN,REPOSITORY,--repository)

.PHONY: bench
bench: tools build ## Measures the figures of docs/measured.md beside their rivals
	python -m benches

.PHONY: kills
kills: tools program ## Kills the nodes' program at POINTS system calls (250) of each kind of command, and looks at the next
	python -m tests.document.kills $(or $(POINTS),250)

.PHONY: faults
faults: tools local ## Has every call that a function makes of AWS fail in every way, and prints what became of its work
	python -m tests.fault_matrix

.PHONY: lock
lock: tools ## Resolves local/requirements.in into hashes
	pip install --quiet uv
	uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
		--override local/overrides.txt local/requirements.in --output-file local/requirements.txt

.PHONY: clean
clean: ## Removes all that was built and installed
	rm -rf target .aws-sam .tools

.PHONY: tools
tools: $(TOOLS)/.ready ## Installs what the others need, pinned, under .tools
	@local/install-node-tools

$(TOOLS)/.ready: local/requirements.txt
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	rm -rf $(TOOLS)
	python3 -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet --no-deps --require-hashes -r local/requirements.txt
	touch $@
