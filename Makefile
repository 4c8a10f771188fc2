# Everything that is done here more than once. CI calls these targets and has
# no commands of its own, so what passes here passes there.
#
# The build never asks for root. Only apt (deploy/dev/prepare.sh) and the keeper
# (bin/holdfast up) do, and each says so.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory
.DEFAULT_GOAL := help
# The steps of one target build on each other, and go uses all cores by itself.
.NOTPARALLEL:

# Go's own installer puts it there, and sudo or cron may not have it in PATH.
export PATH := $(PATH):/usr/local/go/bin
GO ?= go

# Taken from git only where this folder is a checkout: an unpacked archive
# inside some other checkout must not call itself by that one's name.
VERSION ?= $(shell { [ -e .git ] && git describe --tags --always --dirty 2>/dev/null; } || echo unreleased)
GO_BUILD = CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-X main.version=$(VERSION)'

# Two test packages at a time: some start a whole cluster, and their deadlines
# are meant for a machine that is not starved.
TEST_PACKAGES ?= 2
TEST_TIMEOUT  ?= 30m

# Pinned, and built into bin/tools under a name that holds the version, so a
# new pin is a new file.
GOLANGCI_LINT_VERSION      := v2.15.0
PROTOC_GEN_GO_VERSION      := v1.36.12
PROTOC_GEN_GO_GRPC_VERSION := v1.6.2
GOLANGCI_LINT      := bin/tools/golangci-lint-$(GOLANGCI_LINT_VERSION)
PROTOC_GEN_GO      := bin/tools/protoc-gen-go-$(PROTOC_GEN_GO_VERSION)
PROTOC_GEN_GO_GRPC := bin/tools/protoc-gen-go-grpc-$(PROTOC_GEN_GO_GRPC_VERSION)
# Pinned by deploy/helm/go.mod, whose tests use the same as a library.
HELM := bin/tools/helm

# Modules of their own that are linted as the whole is, and those whose imports take
# minutes to compile (Kubernetes, CoreDNS) or are compiled for nothing else here: of
# these the format.
LINT_MODULES   := csi-sanity/kube deploy/helm
FORMAT_MODULES := csi-sanity/kube/kubernetes csi-sanity/kube/coredns deploy/examples/go

.PHONY: help
help: ## Say what there is to do
	@printf 'make <target>, where target is one of\n\n'
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' Makefile

.PHONY: preflight
preflight:
	@deploy/dev/preflight.sh '$(GO)'

.PHONY: build
build: preflight ## Build bin/holdfast and bin/holdfast-mount
	@mkdir -p bin
	$(GO_BUILD) -o bin/ ./cmd/holdfast ./cmd/holdfast-mount

.PHONY: up
up: preflight ## Build, start everything on this machine, and show a file in a mount and in its bucket
	@deploy/dev/prepare.sh run
	@$(MAKE) build
	bin/holdfast up
	@deploy/dev/tour.sh

.PHONY: down
down: $(if $(wildcard bin/holdfast),,build) ## Stop everything that up started; the data stays
	bin/holdfast down

.PHONY: test
test: preflight ## Run every test: packages with the race detector, the binaries from outside, the image
	@deploy/dev/prepare.sh run load race image
	$(GO) test -race -tags invariants -p $(TEST_PACKAGES) -timeout $(TEST_TIMEOUT) $$($(GO) list ./... | grep -v /csi-sanity)
	@$(MAKE) chart sanity image-test

.PHONY: sanity
sanity: build ## Run the black-box tests of csi-sanity against bin/
	@deploy/dev/prepare.sh run load
	HOLDFAST_BIN='$(CURDIR)/bin' $(GO) test -count=1 -timeout $(TEST_TIMEOUT) ./csi-sanity/...

# One scenario or several, by a regular expression: make e2e E2E=TestCluster
E2E ?=

E2E_COMMAND = $(if $(filter 0,$(shell id -u)),,sudo -E) GO='$(shell command -v $(GO))' bin/e2e/holdfast-e2e

.PHONY: e2e
e2e: bin/e2e/holdfast-e2e ## Start a real Kubernetes of two nodes, run the end-to-end tests on it, take it down (E2E=regexp; root)
	@deploy/dev/prepare.sh run e2e
	$(E2E_COMMAND) test $(if $(E2E),'$(E2E)')

.PHONY: bin/e2e/holdfast-e2e
bin/e2e/holdfast-e2e: preflight
	@mkdir -p bin/e2e
	cd csi-sanity/kube && CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -o ../../bin/e2e/ ./cmd/holdfast-e2e

# How many times; HOLDFAST_SEED repeats a run that failed.
HOLDFAST_CHAOS ?= 1000

.PHONY: chaos
chaos: build ## Kill what serves the mounts a thousand times under load (HOLDFAST_CHAOS=kills, HOLDFAST_SEED)
	@deploy/dev/prepare.sh run load
	HOLDFAST_BIN='$(CURDIR)/bin' HOLDFAST_CHAOS='$(HOLDFAST_CHAOS)' $(GO) test -count=1 -v -timeout 2h -run '^TestKillWorkers$$' ./csi-sanity

# How many volumes; make sanity does it with 20.
HOLDFAST_SCALE ?= 1000

.PHONY: scale
scale: build ## Make, mount and delete a thousand volumes, and look for what they leave (HOLDFAST_SCALE=volumes)
	@deploy/dev/prepare.sh run
	HOLDFAST_BIN='$(CURDIR)/bin' HOLDFAST_SCALE='$(HOLDFAST_SCALE)' $(GO) test -count=1 -v -timeout 30m -run '^TestScale$$' ./csi-sanity

# Flags of csi-sanity/bench: BENCH='-rounds 1 -rows seqw,seqr'
BENCH ?=

.PHONY: bench
bench: build ## Measure Holdfast beside weed mount and a loopback, and write BENCH.md (BENCH=flags)
	@deploy/dev/prepare.sh run load
	$(GO) run ./csi-sanity/bench -bin bin -out BENCH.md $(BENCH)

FUZZ_TIME    ?= 1m
FUZZ_WORKERS ?= 2
# For each target in make check, where all of it is to take a minute and a half.
FUZZ_CHECK   ?= 5s

.PHONY: fuzz
fuzz: preflight ## Damaged journals and records, strange names, parameters and requests, as the fuzzer finds them (FUZZ_TIME=1m for each target)
	@deploy/dev/fuzz.sh '$(GO)' '$(FUZZ_TIME)' '$(FUZZ_WORKERS)'

.PHONY: image-test
image-test: preflight ## Build the Dockerfile for amd64 and arm64 without a registry, and look inside
	@deploy/dev/prepare.sh image
	$(GO) mod download
	$(GO) test -count=1 -timeout $(TEST_TIMEOUT) -tags image ./deploy/image

# With the same flags for all, Helm's three hundred packages are compiled once.
CHART_GO = CGO_ENABLED=0 $(GO)

.PHONY: chart
chart: preflight ## Check the Helm chart: lint, what it renders, what it refuses, what it promises
	cd deploy/helm && $(CHART_GO) vet -trimpath . && $(CHART_GO) test -trimpath -count=1 -timeout 10m .

.PHONY: manifests
manifests: preflight ## Write deploy/manifests and the chart's golden files anew, after a change of the chart
	cd deploy/helm && $(CHART_GO) test -trimpath -count=1 -timeout 10m . -update

.PHONY: helm
helm: $(HELM) ## Build bin/tools/helm, the Helm that the chart is tested with (some minutes, once)

$(HELM): deploy/helm/go.mod | preflight
	@mkdir -p bin/tools
	cd deploy/helm && $(CHART_GO) build -trimpath -buildvcs=false -ldflags '-s -w' -o ../../$@ helm.sh/helm/v4/cmd/helm

.PHONY: lint
lint: preflight $(GOLANGCI_LINT) ## Check style, mistakes and the layers (.golangci.yml says why)
	@for script in deploy/dev/*.sh .ci/run; do bash -n "$$script"; done
	$(GOLANGCI_LINT) run
	@for module in $(LINT_MODULES); do \
	  echo "$$module:"; (cd $$module && CGO_ENABLED=0 GOFLAGS=-trimpath '$(CURDIR)/$(GOLANGCI_LINT)' run); \
	done
	@$(GOLANGCI_LINT) fmt --diff $(FORMAT_MODULES)

.PHONY: format
format: preflight $(GOLANGCI_LINT) ## Format the Go files as lint wants them
	$(GOLANGCI_LINT) fmt

.PHONY: check
check: lint generated test ## Everything that CI asks of a change: lint, generated code, test, each fuzz target for some seconds
	@$(MAKE) fuzz FUZZ_TIME='$(FUZZ_CHECK)'

.PHONY: generate
generate: preflight $(PROTOC_GEN_GO) $(PROTOC_GEN_GO_GRPC) ## Write the .pb.go files and driver/PARAMETERS.md anew
	@deploy/dev/prepare.sh proto
	deploy/dev/generate.sh write $(PROTOC_GEN_GO) $(PROTOC_GEN_GO_GRPC)
	$(GO) run ./cmd/holdfast parameters --markdown > driver/PARAMETERS.md
	$(GO) run ./cmd/holdfast metrics > METRICS.md

.PHONY: generated
generated: preflight $(PROTOC_GEN_GO) $(PROTOC_GEN_GO_GRPC) ## Check that the .pb.go files are what generate would write
	@deploy/dev/prepare.sh proto
	@deploy/dev/generate.sh compare $(PROTOC_GEN_GO) $(PROTOC_GEN_GO_GRPC)

IMAGE       ?= holdfast:$(VERSION)
BUILDER     ?= $(firstword $(foreach b,docker podman buildah,$(shell command -v $(b))))
IMAGE_FLAGS ?=

.PHONY: image
image: ## Build the container image (IMAGE=name:tag, with docker, podman or buildah)
	@[ -n '$(BUILDER)' ] || { echo 'make $@ needs docker, podman or buildah (apt-get install buildah)' >&2; exit 1; }
	$(BUILDER) build $(IMAGE_FLAGS) --build-arg VERSION='$(VERSION)' -t '$(IMAGE)' .

# localhost is nobody's registry: the image is there, or it is not found.
LAPTOP_IMAGE  := localhost/holdfast:laptop
IMAGE_ARCHIVE ?= bin/holdfast-image.tar

.PHONY: images
images: ## Build the image and save it for kind, minikube and k3s (deploy/LAPTOP.md)
	@$(MAKE) image IMAGE='$(LAPTOP_IMAGE)'
	@mkdir -p '$(dir $(IMAGE_ARCHIVE))' && rm -f '$(IMAGE_ARCHIVE)'
	$(BUILDER) $(if $(findstring buildah,$(BUILDER)),push '$(LAPTOP_IMAGE)' 'docker-archive:$(IMAGE_ARCHIVE):$(LAPTOP_IMAGE)',save -o '$(IMAGE_ARCHIVE)' '$(LAPTOP_IMAGE)')

.PHONY: clean
clean: ## Remove what build made (bin/tools stays: it is pinned and takes minutes)
	rm -f bin/holdfast bin/holdfast-mount bin/holdfast-image.tar

# $(call tool,file,package@version): go names what it installs after the
# package, so it goes to a folder of its own and moves when it is whole.
define tool
	@echo "building $(notdir $(1)) (once)"
	@mkdir -p bin/tools
	@new=$$(mktemp -d bin/tools/new.XXXXXX); trap 'rm -rf "$$new"' EXIT; \
	  GOBIN="$(CURDIR)/$$new" GOFLAGS=-buildvcs=false $(GO) install $(2); \
	  mv "$$new"/* $(1)
endef

$(GOLANGCI_LINT): | preflight
	$(call tool,$@,github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION))

$(PROTOC_GEN_GO): | preflight
	$(call tool,$@,google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOC_GEN_GO_VERSION))

$(PROTOC_GEN_GO_GRPC): | preflight
	$(call tool,$@,google.golang.org/grpc/cmd/protoc-gen-go-grpc@$(PROTOC_GEN_GO_GRPC_VERSION))
