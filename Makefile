# Everything a newcomer needs is `make demo` and `make test`; both install what is missing first.
SHELL := /bin/bash
GO    ?= go
BIN   := $(CURDIR)/.bin
FUZZTIME ?= 60s

.PHONY: help deps build demo lab allowed test e2e-artifacts e2e-trust e2e-tftp-loss check lint models fuzz generate bench-artifacts bench-tftp bench-tls bench-revoke bench-storm bench-script bench-http record-quirks e2e-tftp-flood clean
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

deps: ## install what the lab and the checks need (idempotent)
	@integration/deps.sh

build: ## compile bootd and nestctl into .bin/
	@mkdir -p $(BIN); [ -x $(BIN)/bootd ] || echo "compiling bootd and nestctl; the first time takes minutes"
	@$(GO) build -o $(BIN)/ ./cmd/...

demo: allowed lab build ## boot a virtual bare-metal machine end to end and print its timeline
	@$(GO) run ./integration/demo -bootd $(BIN)/bootd -nestctl $(BIN)/nestctl

# What the demo needs of `make deps`: no checkers.
lab:
	@integration/deps.sh lab

# Said before anything is installed or built.
allowed:
	@[ "$$(id -u)" = 0 ] || { unshare --user --net true 2>/dev/null && [ -w /dev/net/tun ]; } || \
	  { echo "make demo: needs root, or user namespaces and read and write on /dev/net/tun" >&2; exit 1; }

test: deps build ## run all tests, end-to-end boots included
	@integration/test.sh

e2e-artifacts: deps build ## boot every format of a set by every firmware with every version of iPXE
	@set -o pipefail; CI=true NESTBOOT_WHOLE_MATRIX=1 $(GO) test -count 1 -timeout 60m -v -run '^TestArtifactsBoot$$' ./integration | grep -v '^==='

e2e-trust: deps build ## boot with every kind of credential, clock and firmware; rotate certificates under load for minutes
	@set -o pipefail; CI=true NESTBOOT_WHOLE_MATRIX=1 $(GO) test -count 1 -timeout 60m -v -run '^(TestTrustBoots|TestT15_RogueNetworkGetsNoTrust|TestRotationUnderLoad)$$' ./integration | grep -v '^==='

e2e-tftp-loss: ## 1,000 TFTP downloads for each of 8 bad networks: loss, copies and wrong order by a relay
	@NESTBOOT_TFTP_TRANSFERS=1000 $(GO) test -count 1 -timeout 60m -v -run '^TestT06_BadNetwork$$' ./tftp | grep -v '^==='

e2e-tftp-flood: lab build ## 100,000 forged TFTP requests a second for ten seconds, while a real machine downloads
	@set -o pipefail; CI=true NESTBOOT_FLOOD=100000x10 $(GO) test -count 1 -timeout 5m -v -run '^TestT02_FloodOfABootd$$' ./integration | grep -v '^==='

check: ## the gate: format, vet, linters, short tests, import table, tidy modules
	@integration/check.sh

lint: ## the gate without its tests
	@integration/check.sh lint

models: ## try 100,000 random sequences of what can happen to grants, tokens and certificates, with crashes (11 minutes)
	@$(GO) test -count 1 -run '^TestT22_ModelInMemory$$' -timeout 1h ./pki -rapid.checks 100000
	@$(GO) test -count 1 -run Model -timeout 1h ./pki/links -rapid.checks 100000

fuzz: ## run every fuzz target for FUZZTIME (60s) each
	@integration/fuzz.sh $(FUZZTIME)

record-quirks: lab ## record anew what firmware, iPXE, Ignition, GRUB and curl send over HTTP (five minutes)
	@$(GO) run ./integration/record-quirks

generate: ## compile the programs inside single-file artifacts (needs GCC of Debian 12)
	@ipxebuild/single/stub/build.sh

bench-artifacts: lab ## time a whole set of boot artifacts, a new trust root and a key
	@$(GO) run ./integration/bench-artifacts

bench-tftp: lab build ## TFTP throughput, CPU per GB and memory, against dnsmasq, tftp-hpa and pin/tftp
	@$(GO) build -o $(BIN)/ ./integration/bench-tftp/...
	@$(BIN)/bench-tftp -bin $(BIN)

bench-tls: lab build ## full handshakes of mutual TLS on one core, against nginx
	@$(GO) build -o $(BIN)/ ./integration/bench-tls
	@$(BIN)/bench-tls -bootd $(BIN)/bootd -nestctl $(BIN)/nestctl

bench-http: lab build ## what sending images costs, plain and over TLS, against nginx; fast clients beside slow ones
	@$(GO) build -o $(BIN)/ ./integration/bench-http
	@$(BIN)/bench-http -bootd $(BIN)/bootd -nestctl $(BIN)/nestctl

bench-revoke: lab build ## how long a revoked credential works on, with a thousand open connections
	@$(GO) run ./integration/bench-revoke -bootd $(BIN)/bootd -nestctl $(BIN)/nestctl

bench-storm: lab build ## power on 1,000 machines at once, and 5,000: time per stage, failures, memory and processor
	@$(GO) run ./integration/bench-storm -bootd $(BIN)/bootd -nestctl $(BIN)/nestctl

bench-script: lab build ## boot scripts and Ignition configs per second, with 1,000 and 100,000 machines known
	@$(GO) run ./integration/bench-script -bootd $(BIN)/bootd -nestctl $(BIN)/nestctl

clean: ## remove what was built here; the cache stays
	@rm -rf .bin .run dist
