# Two commands are all a newcomer needs: `make run` and `make test`.
SHELL := /bin/bash
GO ?= go
# A clone may belong to another user than the one who builds: git is told that this folder is meant.
GIT := git -c safe.directory=$(CURDIR)
VERSION ?= $(shell $(GIT) describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT := $(shell $(GIT) rev-parse HEAD 2>/dev/null || echo unknown)
DATE := $(shell $(GIT) log -1 --format=%cI 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT) -X main.date=$(DATE)
PREFIX ?= /usr/local

# What has goroutines and links no libp2p: only this runs under the race detector, which needs gcc.
RACE := ./swarm/event/... ./trust ./trust/audit ./trust/authority ./trust/composite ./trust/credential ./trust/guard ./trust/ledger ./trust/policy ./trust/witness ./bpf/... ./sim/cage2/... ./sim/learn/... ./sim/world/... ./sim/serve/...

# Paths left out, what one clone compiled serves the next; go vet runs in lint.
TESTED := -trimpath -vet=off

.DEFAULT_GOAL := help
.PHONY: help run test models soak build build-pkcs11 test-pkcs11 build-yara test-yara install generate bench build-peers lint picture train-cage2

help: ## show this
	@echo "omega: a host-security mesh without a server"
	@echo
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/omega: one static, stripped binary
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags "$(LDFLAGS)" -o bin/omega ./cmd/omega

build-pkcs11: ## build bin/omega-pkcs11, which can load a PKCS#11 token's library: needs gcc, and is not static
	@mkdir -p bin
	CGO_ENABLED=1 $(GO) build -tags pkcs11 -trimpath -buildvcs=false -ldflags "$(LDFLAGS)" -o bin/omega-pkcs11 ./cmd/omega

test-pkcs11: ## the tests of keys in a PKCS#11 token: needs gcc and softhsm2
	CGO_ENABLED=1 $(GO) vet -tags pkcs11 ./trust/token ./node ./cmd/omega
	CGO_ENABLED=1 $(GO) test -tags pkcs11 ./trust/token
	CGO_ENABLED=1 $(GO) test -tags pkcs11 -run '^TestKeyInAToken$$' ./cmd/omega

build-yara: ## build bin/omega-yara, which matches files with YARA rules: needs gcc, pkg-config and libyara-dev (4.2), and is not static
	@mkdir -p bin
	CGO_ENABLED=1 $(GO) build -tags yara -trimpath -buildvcs=false -ldflags "$(LDFLAGS)" -o bin/omega-yara ./cmd/omega

test-yara: ## the tests of YARA rules, with the real library: needs gcc, pkg-config and libyara-dev (4.2)
	CGO_ENABLED=1 $(GO) vet -tags yara ./modules/yara ./node/privileged/... ./node ./cmd/omega
	CGO_ENABLED=1 $(GO) test -tags yara ./modules/yara ./node/privileged/scanner ./node/privileged/confine
	CGO_ENABLED=1 $(GO) test -tags yara -run '^TestYara' ./node

run: ## build, then watch five hosts catch a real attack and refuse the attacker (best as root); Ctrl-C ends it
	@start=$$(date +%s); $(MAKE) --no-print-directory build && echo "built in $$(( $$(date +%s) - start )) s"
	@exec bin/omega drill --stay

test: ## every test; as root also those in real kernels and networks; what links no libp2p under the race detector too
	@if [ "$$($(GO) env CGO_ENABLED)" = 1 ] && command -v gcc >/dev/null; then set -x; $(GO) test $(TESTED) -race -short -timeout 10m $(RACE); else echo "no gcc: the race detector is left out"; fi
	@tally=$$(mktemp); echo "$(GO) test $(TESTED) -timeout 20m ./..."; VECTOR_TALLY=$$tally $(GO) test $(TESTED) -timeout 20m ./...; code=$$?; sort $$tally; rm -f $$tally; exit $$code

models: ## the formal models of the protocols, and their mutants: needs eprover, spin and gcc
	$(GO) test -count=1 -v -run '^TestModels$$' ./trust/models | grep -v '^=== '

# FUZZTIME is for each target: executions (20000x) rather than a time, since Go's fuzzer at times ends a timed run with
# "context deadline exceeded" and no finding; CHAOS (a time, such as 1h) for killing, cutting off and healing hosts at random, and for
# a busy host whose books must balance (each takes that long); DRILLS a number of drills.
soak: models ## longer runs: the models, every decoder fuzzed, a swarm in chaos, ten drills in a row
	@set -eo pipefail; tmp=$$(mktemp -d); trap 'rm -rf $$tmp' EXIT; \
	for dir in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		$(GO) test -c -fuzz=. -o $$tmp/fuzz.test $$dir; \
		for f in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go | cut -c6-); do echo "$$dir $$f"; \
			(cd $$dir && $$tmp/fuzz.test -test.run '^$$' -test.fuzz "^$$f$$" -test.fuzztime $${FUZZTIME:-20000x} -test.fuzzcachedir $$tmp/cache -test.parallel 2 | tail -n 2); done; done
	@set -o pipefail; SOAK_FOR=$${CHAOS:-5m} $(GO) test -count=1 -timeout 24h -v -run 'TestChaos|TestLargeSwarm|TestSoak|TestOrdinaryLife' ./node/drill ./swarm ./bpf ./modules/pack | grep -v '^=== '
	@$(MAKE) --no-print-directory build
	@set -e; for i in $$(seq $${DRILLS:-10}); do bin/omega drill --json --quiet; done

bench: build build-peers ## the performance figures of this build on this machine, beside others' where they can be had
	bin/omega bench

build-peers: ## build bin/omega-sigma-peers, which holds other Sigma engines against ours for the benchmark: needs their two modules
	@mkdir -p bin
	cd modules/sigma/peers && CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags "-s -w" -o ../../../bin/omega-sigma-peers .

lint: ## gofmt, go vet, staticcheck
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "not gofmt-ed:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

train-cage2: build ## make the trained CAGE-2 defender anew, from nothing: some fifteen minutes of one idle core
	bin/omega sim train --seed 1 --out sim/learn/cage2.weights --curve sim/learn/curve.svg

generate: ## make every generated file anew: needs clang, libbpf's headers and protoc
	$(GO) generate ./...
	cd node/api/v1 && protoc --plugin=protoc-gen-go=$$($(GO) tool -n protoc-gen-go) --plugin=protoc-gen-connect-go=$$($(GO) tool -n protoc-gen-connect-go) \
		--go_out=. --go_opt=paths=source_relative --connect-go_out=. --connect-go_opt=paths=source_relative,simple omega.proto
	cd sim/serve/v1 && protoc --plugin=protoc-gen-go=$$($(GO) tool -n protoc-gen-go) --plugin=protoc-gen-connect-go=$$($(GO) tool -n protoc-gen-connect-go) \
		--go_out=. --go_opt=paths=source_relative --connect-go_out=. --connect-go_opt=paths=source_relative,simple sim.proto

install: build ## put the binary into $(PREFIX)/bin
	install -D -m 0755 bin/omega $(DESTDIR)$(PREFIX)/bin/omega

picture: build ## record the drill for the README, and draw the simulator's pictures
	bin/omega drill --record node/drill/drill.svg
	UPDATE=1 $(GO) test -run Pictures ./sim/export
