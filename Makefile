# Everything a newcomer needs is `make demo` and `make test`; both install what is missing first.
SHELL := /bin/bash
GO    ?= go
BIN   := $(CURDIR)/.bin
FUZZTIME ?= 60s

.PHONY: help deps build demo allowed test check fuzz clean
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

deps: ## install what the lab and the checks need (idempotent)
	@integration/deps.sh

build: ## compile bootd and nestctl into .bin/
	@mkdir -p $(BIN) && $(GO) build -trimpath -o $(BIN)/ ./cmd/...

demo: allowed deps build ## boot a virtual bare-metal machine end to end and print its timeline
	@$(GO) run ./integration/demo -bootd $(BIN)/bootd -nestctl $(BIN)/nestctl

# Said before anything is installed or built.
allowed:
	@[ "$$(id -u)" = 0 ] || unshare --user --net true 2>/dev/null || \
	  { echo "make demo: needs root, or a kernel that lets users make user namespaces" >&2; exit 1; }

test: deps build ## run all tests, end-to-end boots included
	@integration/test.sh

check: ## the gate: format, vet, linters, short tests, import table, tidy modules
	@integration/check.sh

fuzz: ## run every fuzz target for FUZZTIME (60s) each
	@integration/fuzz.sh $(FUZZTIME)

clean: ## remove what was built here; the cache stays
	@rm -rf .bin .run dist
