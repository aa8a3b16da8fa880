SHELL := /bin/bash
.DEFAULT_GOAL := help

# The fleet that chat, env and verify speak to.
INVENTORY ?= inventories/sandbox
HOST ?= pi-01
PROMPT ?= Hello
VENV := .venv/bin
export PATH := $(CURDIR)/$(VENV):$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
# Python keeps what it has compiled, else every run of Ansible begins with doing so.
unexport PYTHONDONTWRITEBYTECODE

# What the last run wrote for clients of a host: its address and its key.
FOLDER = $(abspath $(if $(wildcard $(INVENTORY)/.),$(INVENTORY),$(dir $(INVENTORY))))
SECRETS = $(if $(filter $(abspath inventories/sandbox),$(FOLDER)),$(abspath .sandbox/main/keys),$(FOLDER)/.secrets)
CLIENT = $(wildcard $(SECRETS)/$(HOST).env)
KNOWN = test -n "$(CLIENT)" || { echo "$(HOST) is not known here: run site.yml (or make up) for it first." >&2; exit 1; }

.PHONY: help up down chat env status verify audit plan lock lint unit unit-root molecule bench release verify-release
.PHONY: test test-all test-one test-engines test-weights test-refusals test-known-issues test-rollback test-swap test-uninstall
.PHONY: test-attacks test-network test-clients test-vllm test-vm test-arm64 test-core

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: ## two simulated boards on this machine, provisioned and verified
	@scripts/venv control
	@python -m sandbox up
	@ansible-playbook -i inventories/sandbox site.yml
	@printf '\nTry next:\n  make chat HOST=pi-01 PROMPT="Hello"\n  eval "$$(make env HOST=jetson-01)"   # any OpenAI client then uses that board\n'

down: ## remove everything that make up made (KEEP=cache keeps images, downloads and .venv)
	@if [ -x $(VENV)/python ]; then $(VENV)/python -m sandbox down $(if $(filter cache,$(KEEP)),--keep-cache); fi
	@$(if $(filter cache,$(KEEP)),true,test -e .sandbox || rm -rf .venv .cache src/*.egg-info)

chat: ## ask a host: make chat HOST=pi-01 PROMPT="Hello"
	@$(KNOWN)
	@. $(CLIENT) && printf '%s' "$$OPENAI_API_KEY" | llm-provider chat --url "$${OPENAI_BASE_URL%/v1}" --key-file - -- "$$PROMPT"
# As typed: a $$ in a question is the asker's.
chat: export PROMPT := $(value PROMPT)

env: ## address and key of a host for any OpenAI client: eval "$(make env HOST=pi-01)"
	@$(KNOWN)
	@cat $(CLIENT)

status: ## what runs in the sandbox
	@scripts/venv control
	@python -m sandbox status

verify: ## verify every host of INVENTORY; changes nothing
	@scripts/venv control
	@ansible-playbook -i $(INVENTORY) playbooks/verify.yml

audit: ## audit the security of every host of INVENTORY: own checks and CIS Docker items; changes nothing
	@scripts/venv control
	@ansible-playbook -i $(INVENTORY) playbooks/audit.yml

plan: ## the plan of every host of INVENTORY, without a connection (FACTS=file: of a board that you do not have yet)
	@scripts/venv control
	@ansible-playbook -i $(INVENTORY) playbooks/plan.yml $(if $(FACTS),-e board_facts_file=$(abspath $(FACTS)))

lock: ## write revisions, sizes and hashes of a model (MODEL=..), or digests of images (IMAGES=all)
	@scripts/venv control
	@python scripts/lock.py $(if $(MODEL),--model=$(MODEL)) $(if $(REVISION),--revision=$(REVISION)) $(if $(IMAGES),--images=$(IMAGES)) $(if $(HUB),--hub=$(HUB))

lint: ## every linter
	@scripts/venv dev
	ruff check . && ruff format --check .
	lint-imports
	mypy --strict src sandbox filter_plugins library module_utils/edge_host action_plugins callback_plugins scripts tests benchmarks
	yamllint --strict .
	shellcheck scripts/venv .ci/run tests/integration/network/capture.sh sandbox/board/init sandbox/board/boards/jetson/nvidia-container-runtime sandbox/board/boards/issues/{nvpmodel,jetson_clocks,swapoff,python3}
	ansible-lint

unit: ## unit tests
	@scripts/venv dev
	pytest -q -n $(shell expr 2 \* $$(nproc)) --dist worksteal --durations=10

# What is not root's cannot try what other users may do: there these tests are skipped.
unit-root: ## the unit tests that take root, as root: sudo env "PATH=$$PATH" make unit-root
	@[ "$$(id -u)" = 0 ] || { echo 'These tests take root: sudo env "PATH=$$PATH" make unit-root' >&2; exit 1; }
	@scripts/venv dev
	pytest -q $(shell grep -rlE --include='test_*.py' 'needs_root|geteuid' tests/unit)

molecule: ## the main scenario: two boards from nothing to a swap, a refusal and a reboot
	@scripts/venv dev
	@python -m tests scenario

test: ## what must hold before a commit: lint, unit tests, the main scenario (15 minutes on two cores)
	@scripts/venv dev
	@python -m tests main

test-all: ## that, and every suite below but clients (50 minutes)
	@scripts/venv dev
	@python -m tests all

test-engines: ## suite: provider module and chat API on real llama-server and Ollama
test-weights: ## suite: downloads of weights and images, and faulty sources
test-refusals: ## suite: invalid input, refused before anything changes
test-known-issues: ## suite: fixes of boards' known issues
test-rollback: ## suite: failed and interrupted changes
test-swap: ## suite: changes of engine, model and chat API under load
test-attacks: ## suite: hostile and faulty clients of the chat API: floods, large bodies, invalid requests
test-network: ## suite: what a neighbour reaches of a board, under the rules of each Docker version
test-uninstall: ## suite: removal of everything that the project put on a host
test-attacks test-engines test-network test-weights test-refusals test-known-issues test-rollback test-swap test-uninstall:
	@scripts/venv dev
	@python -m tests suite $(@:test-%=%)

test-clients: ## suite: clients of others (SDKs, agents, a browser) against the chat API, on request: 15 minutes
	@scripts/venv dev
	@scripts/venv clients
	@python -m tests suite clients

test-one: ## one test alone, as a failed run names it: make test-one TEST='tests/...::test_name'
	@scripts/venv dev
	@python -m tests one "$$TEST"
# As typed: a parameter of a test may hold what make or the shell would replace.
test-one: export TEST := $(value TEST)

test-vllm: ## the same suite as `engines` on real vLLM, on this CPU, and site.yml with it: minutes more, and gigabytes
	@scripts/venv dev
	@python -m sandbox images
	@python -m tests.integration.engines.vllm
	pytest -q tests/integration/engines --engine vllm
	@SANDBOX=test python -m sandbox up --hosts jetson-01
	@python -m tests.system.vllm
	SANDBOX=test pytest -q tests/system/vllm

test-vm: ## a virtual machine as a board, and its power cut at every write of a change: an hour without KVM
	@scripts/venv dev
	@python -m sandbox vm
	pytest -q -s tests/system/vm

test-arm64: ## emulated arm64 boards, a Raspberry Pi and a Jetson by their device trees: an hour or two
	@scripts/venv dev
	@python -m sandbox images
	@python -m sandbox arm64
	pytest -q -s tests/system/arm64

bench: ## what the chat API costs and stands, a change its clients, and weights the line outside
	@scripts/venv dev
	@python -m sandbox images
	@python -m benchmarks.chat_api
	@python -m benchmarks.swap
	@python -m benchmarks.weights

test-core: ## lint, unit tests and the main scenario with ansible-core 2.20 and 2.21, on Python 3.12 and 3.13
	@scripts/venv core-2.20
	@scripts/venv core-2.21
	@$(MAKE) --no-print-directory lint unit molecule VENV=.venv-core-2.20/bin
	@$(MAKE) --no-print-directory lint unit molecule VENV=.venv-core-2.21/bin

release: ## changelog, commit, signed tag and files of a release of this project (VERSION=x.y.z); pushes nothing
	@scripts/venv dev
	@python -m scripts.release "$(VERSION)"

verify-release: ## whether an archive is the released one (ARCHIVE=.., SIGNERS=keys of the maintainers)
	@python3 -m scripts.verify_release "$(ARCHIVE)" $(if $(SIGNERS),--signers "$(SIGNERS)")
