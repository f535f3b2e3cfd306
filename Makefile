# Everything that is slow to build is kept outside the checkout.
CACHE   ?= $(or $(CHANDLER_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/chandler)
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
RUN_FOR ?= 0
IMAGE   ?= chandler:$(VERSION)
FUZZ_FOR ?= 10s
NODES   ?= 0

LDFLAGS  = -s -w -X github.com/chandler-k8s/chandler/cli.version=$(VERSION) -X github.com/chandler-k8s/chandler/cli.commit=$(COMMIT)
LINT     = $(CACHE)/tools/golangci-lint-$(shell cat tools/lint/go.mod tools/lint/go.sum | sha256sum | cut -c1-16)-$(shell go env GOVERSION)
HELM     = $(CACHE)/tools/helm-$(shell cat tools/helm/go.mod tools/helm/go.sum | sha256sum | cut -c1-16)-$(shell go env GOVERSION)

.DEFAULT_GOAL := help
.PHONY: help build image run test e2e fuzz bench lint tidy fmt golden verify binaries cluster-up cluster-down kind-up kind-load e2e-kind kind-down clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build bin/chandler
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/chandler .

image: ## Build bin/chandler.tar, an OCI image for amd64 and arm64, without Docker
	@for arch in amd64 arm64; do \
	  echo "building for linux/$$arch (minutes the first time)"; \
	  CGO_ENABLED=0 GOOS=linux GOARCH=$$arch go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/chandler-$$arch . || exit 1; \
	done
	@cd tools/image && go run . --out $(CURDIR)/bin/chandler.tar --name $(IMAGE) \
	  --binary amd64=$(CURDIR)/bin/chandler-amd64 --binary arm64=$(CURDIR)/bin/chandler-arm64 \
	  --label org.opencontainers.image.title=chandler --label org.opencontainers.image.licenses=Apache-2.0 \
	  --label org.opencontainers.image.source=https://github.com/chandler-k8s/chandler \
	  --label org.opencontainers.image.version=$(VERSION) --label org.opencontainers.image.revision=$(COMMIT)

run: build binaries ## Show it: a control plane, three nodes, an agent on each (RUN_FOR=20s ends by itself)
	@go build -o bin/demo ./test/demo
	@bin/demo --binary bin/chandler --for $(RUN_FOR)

test: binaries $(HELM) ## Run all tests: unit, race detector, integration on a real API server
	CHANDLER_HELM=$(HELM) go test -race -timeout 20m ./...
	cd test/registry && go test -race -timeout 20m ./...
	cd test/consumers && go test -race -timeout 20m
	cd tools/image && go test ./...

e2e: ## Run the end-to-end tests on three real nodes, as root; those that run already are used and left
	@go build -o bin/cluster ./test/cluster/cmd/cluster
	@ours=; bin/cluster env >/dev/null 2>&1 || ours=1; \
	  bin/cluster up --nodes 3 || exit 1; eval "$$(bin/cluster env)"; \
	  go test -count=1 -p 1 -tags e2e -timeout 30m ./test/e2e ./test/cluster/nodes; status=$$?; \
	  [ -z "$$ours" ] || bin/cluster down || exit 1; exit $$status

fuzz: ## Fuzz every parser of outside input for FUZZ_FOR each
	@for target in $$(grep -rl '^func Fuzz' --include='*_test.go' .); do \
	  for name in $$(sed -n 's/^func \(Fuzz[A-Za-z]*\).*/\1/p' $$target); do \
	    echo "== $$name"; go test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZ_FOR) ./$$(dirname $$target) || exit 1; \
	  done; done

bench: build binaries ## Measure what DESIGN budgets, and write docs/performance.md
	@go run ./test/bench --binary bin/chandler --write docs/performance.md

lint: $(LINT) ## Check the code, the table of imports, and the workflows
	$(LINT) run ./...
	go tool -modfile=tools/actionlint/go.mod actionlint -shellcheck= -pyflakes= .github/workflows/*.yaml

tidy: ## Check that module files are tidy
	@for module in . test/registry test/consumers tools/image tools/helm tools/actionlint; do \
	  (cd $$module && go mod tidy -diff) || exit 1; \
	done

fmt: $(LINT) ## Format the code
	$(LINT) fmt ./...

golden: $(HELM) ## Write the golden files, the JSON schema, the policies and the manifests of deploy/ anew
	go test ./config ./node/identity ./leader/scrapercsr -update
	go test ./leader -run TestMetrics -update
	go test ./leader/clusterstatus -run TestAlarmGolden -update
	CHANDLER_HELM=$(HELM) go test ./test/chart -run 'TestManifests|TestInstall' -update

verify: lint tidy test ## Run what CI runs but for the end-to-end tests; leaves no diff
	git diff --exit-code

binaries: ## Build the control plane that tests use, once (minutes)
	@go run ./test/cluster/cmd/cluster binaries

cluster-up: ## Start a control plane and print its kubeconfig; NODES=3 adds real nodes, as root
	@go build -o bin/cluster ./test/cluster/cmd/cluster
	@bin/cluster up $(if $(filter-out 0,$(NODES)),--nodes $(NODES))

cluster-down: ## Stop what cluster-up started
	@go run ./test/cluster/cmd/cluster down

kind-up: ## Create a cluster of four nodes with kind, for machines with Docker
	@test/kind/kind.sh up

kind-load: ## Build the images that the end-to-end tests run and load them into kind's nodes
	@test/kind/kind.sh load

e2e-kind: ## Run the end-to-end tests on kind, but for what needs the nodes themselves
	@test/kind/kind.sh test

kind-down: ## Delete kind's cluster
	@test/kind/kind.sh down

clean: ## Remove what was built in the checkout
	rm -rf bin

$(LINT):
	@echo "building golangci-lint, once (minutes): $@"
	@mkdir -p $(@D)
	cd tools/lint && go build -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(HELM):
	@echo "building helm, once (minutes): $@"
	@mkdir -p $(@D)
	cd tools/helm && go build -o $@ helm.sh/helm/v4/cmd/helm
