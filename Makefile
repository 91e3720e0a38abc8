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
export INPUT ?= {}
export CONFIG_ENV ?= default
export PARAMETERS ?=

.PHONY: help
help: ## Lists the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: tools build ## Deploys on a local cloud, pushes an image, launches a node, shows both warm
	@python -m local.demo

.PHONY: test
test: ## Runs everything: lints, unit tests, the deployed stack on real containerd
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target checked build scripts
	pytest tests

# Beside the tools and the build: the AWS SDKs take one core for minutes in each.
.PHONY: checked
checked: clippy
	cargo test --locked --workspace

.PHONY: lint
lint: clippy scripts ## Checks format, lints, template, scripts

.PHONY: clippy
clippy:
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

.PHONY: scripts
scripts: tools
	ruff check local tests benches
	ruff format --check local tests benches
	shellcheck ssm/prefetch-images.sh local/install-node-tools .ci/run examples/prefetch-and-wait
	sam validate --lint
	cfn-lint template.yaml examples/bake/node-group.yaml

.PHONY: unit
unit: ## Runs the Rust tests
	cargo test --locked --workspace

.PHONY: e2e
e2e: tools build ## Runs the document on real containerd, the local cloud, and the deployed stack on it
	pytest tests

.PHONY: build
build: tools ## Builds the functions (sam build)
	sam build

.PHONY: document
document: tools ## Writes the Command document anew from its script
	python -m local.document

.PHONY: check
check: $(TOOLS)/.ready ## Says what a deployment with samconfig.toml and PARAMETERS would do, or why not; no account
	@python -m local.check

.PHONY: deploy
deploy: build ## Deploys to AWS, asking for what it needs (sam deploy --guided)
	sam deploy --guided

.PHONY: invoke
invoke: tools build ## Replays EVENT through FUNCTION, deployed on a local cloud
	@python -m local.invoke $(FUNCTION) $(EVENT)

.PHONY: bake
bake: $(TOOLS)/.ready ## Bakes snapshots by the deployed STACK, and waits for the end
	@sam remote invoke BakeSnapshot --stack-name '$(STACK)' --event "$$INPUT" --output json | python3 -c 'import json, sys; \
	ended = json.load(sys.stdin); print(json.dumps(ended, indent=2)); sys.exit(ended["status"] != "SUCCEEDED")'

.PHONY: cloud
cloud: tools ## Runs a local cloud until Ctrl-C
	python -m local up

.PHONY: bench
bench: tools build ## Measures the README's figures beside their rivals
	python -m benches

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
