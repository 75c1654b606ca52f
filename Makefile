# kmp2mqtt: `make help` lists what can be made.

# The nearest tag and the commit; where there is none, main.go's own.
VERSION ?= $(shell git describe --tags --dirty 2>/dev/null)
COMMIT  ?= $(shell git rev-parse --short HEAD 2>/dev/null)
LDFLAGS  = -s -w $(if $(VERSION),-X main.version=$(VERSION)) $(if $(COMMIT),-X main.commit=$(COMMIT))
# Without HTTP/2, which nothing here speaks: 350 kB less. What others wrote is not inlined, for it does not have to be
# fast: 1.1 MB less, on disk and in memory. Dockerfile and .goreleaser.yaml have the same flags.
BUILD    = CGO_ENABLED=0 go build -tags nethttpomithttp2 -trimpath -gcflags all=-l -gcflags kmp2mqtt/...= -ldflags '$(LDFLAGS)'
LINT     = go tool -modfile=tools/go.mod golangci-lint
FUZZTIME = 2s
WEEKS    = ^(TestWeek|TestLogs(Budget|ClockSet|OfWhom|WrongClock|DriftingClock|LongOutage))
VULNDB   = https://vuln.go.dev
TARGETS  = linux/amd64 linux/arm64 linux/arm/7 linux/arm/6 linux/386 linux/riscv64 windows/amd64 darwin/arm64 freebsd/amd64

.PHONY: build test setup lint fmt unit weeks fuzz e2e faults packages-test soak vuln bench cross docs screenshots packages app image compose-test app-test clean help
.NOTPARALLEL: # one step after the other: the steps of `test` build on each other

build: ## the program, static and stripped: ./kmp2mqtt
	$(BUILD) -o kmp2mqtt .

test: setup lint unit weeks faults fuzz e2e packages-test ## everything, on a machine that has only Go: installs, lints, tests

setup: ## install the programs that the tests use (Debian packages, Node-RED)
	test/setup.sh

lint: ## gofumpt, go vet, staticcheck and the rules in .golangci.yml
	go vet -tags e2e ./...
	$(LINT) run ./...

fmt: ## format as lint wants it
	$(LINT) fmt ./...

unit: ## unit, golden and property tests, with the race detector
	go test -race -timeout 20m -skip '$(WEEKS)' ./...

weeks: ## simulated weeks of meters whose logs are read; the race detector would take minutes longer
	go test -count=1 -run '$(WEEKS)' ./bridge

faults: ## 100 000 readings on bad lines, about a minute; FLAGS=-update writes docs/faults.md
	go test -count=1 -run '^TestFaults' ./bridge -readings 950 $(FLAGS)

fuzz: ## every fuzz target for FUZZTIME
	test/fuzz.sh $(FUZZTIME)

e2e: ## end to end, against Mosquitto, ser2net, socat, Node-RED, Prometheus and Chromium
	go test -race -count=1 -parallel 6 -timeout 30m -tags e2e ./test

packages-test: ## packages built twice, installed, run, upgraded and purged on a booted Debian; needs root
	$(if $(filter-out 0,$(shell id -u)),sudo env PATH="$$PATH" )test/packages.sh

soak: ## the storms of e2e for 20 minutes instead of one: lines, brokers and bridges that fail
	go test -race -count=1 -parallel 6 -timeout 1h -tags e2e -run '^(TestStorm|TestLinesLate)' -v ./test -soak

vuln: ## known vulnerabilities in what the program uses; fetches the database from the network
	go tool -modfile=tools/go.mod govulncheck -db $(VULNDB) ./...

bench: ## the numbers of docs/benchmarks.md
	go test -run '^$$' -bench . -benchmem ./kmp/... ./bridge/...
	go run ./test/measure

cross: ## does it build for every platform?
	@set -e; for t in $(TARGETS); do \
	  set -- $$(echo $$t | tr / ' '); echo "build $$t"; \
	  GOOS=$$1 GOARCH=$$2 GOARM=$$3 $(BUILD) -o /dev/null .; \
	done

docs: ## regenerate what the documents take from the code
	go test ./kmp/catalog ./kmp/diagnosis ./bridge ./bridge/web -update
	go test ./bridge/former -update-migrate

screenshots: ## the pictures of the page in docs, takes ten minutes
	test/browser/screenshots.sh

packages: ## archives and packages for every platform, into dist/
	go tool -modfile=tools/release/go.mod goreleaser release --snapshot --clean

app: ## the Home Assistant app into dist/homeassistant; FLAGS="--image NAME --url URL"
	VERSION=$(VERSION) COMMIT=$(COMMIT) deploy/homeassistant/make.sh $(FLAGS)

image: ## the container image kmp2mqtt:latest
	docker build --build-arg VERSION=$(VERSION) --build-arg COMMIT=$(COMMIT) -t kmp2mqtt .

compose-test: ## docker-compose.yml for real: needs a Docker engine
	test/compose.sh

app-test: ## the Home Assistant app for real: needs a Docker engine
	test/app.sh

clean: ## remove what was built and installed here
	rm -rf kmp2mqtt dist test/node-red/node_modules test/browser/node_modules

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14
