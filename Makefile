# Thin names for `cargo xtask`, which does the work; `cargo xtask help` lists everything.
#
#   make demo            two hosts join a gateway, talk to pods, and are refused by a policy   (KEEP=1 leaves it running)
#   make test            installs what is missing, builds, runs all tests
#   make conformance     every case of the policy languages, with real packets too, and a report by feature; 5 minutes
#   make stress          changes, kills and floods for an hour, and a checker   (SECONDS_TO_RUN=60, SEED=7)
#   make fuzz TARGET=…   runs a fuzz target until it finds something   (RUNS=1000000 stops earlier; no TARGET lists them)
#   YES=1                installs without asking
#   QUICK=1              measures less: `make bench QUICK=1` takes minutes

export KEEP YES
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)

.PHONY: deps build bpf test conformance demo bench fuzz stress ci fmt verify-kernel clean
.DEFAULT_GOAL := build

deps:
	@sh xtask/deps.sh

bpf: deps
	@cargo xtask bpf

build: bpf
	cargo build --bins

test: deps
	@cargo xtask test

conformance: deps
	@cargo xtask conformance

demo: deps
	@cargo xtask demo

bench: deps
	@cargo xtask bench $(if $(QUICK),--quick)

stress: deps
	@cargo xtask stress --seconds $(or $(SECONDS_TO_RUN),3600) $(if $(SEED),--seed $(SEED))

fuzz: deps
	@cargo xtask fuzz $(TARGET) $(if $(RUNS),--runs $(RUNS))

ci: deps
	@cargo xtask ci

fmt:
	cargo fmt --all

# make verify-kernel [KERNEL="5.10 6.1 6.12"]
verify-kernel:
	@sh xtask/deps.sh qemu
	@cargo xtask verify-kernel $(or $(KERNEL),5.10 6.1 6.12)

clean:
	cargo clean
