# One target per thing that people do here; `make` alone lists them. CI runs `make check`.

PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
# cargo-nextest where it is there, else cargo's own runner.
NEXTEST := $(shell command -v cargo-nextest 2>/dev/null)
ARGS ?=
# Where cargo builds to: its own answer, since a configuration file may have a say in it.
TARGET = $(or $(shell $(CARGO) metadata --no-deps --offline --format-version 1 2>/dev/null | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'),target)

.DEFAULT_GOAL := help
.PHONY: help plugins guests host-tools build install run demo test test-plugins test-guests guest-figures test-crash bench bench-smoke fmt lint wall doc check

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

host-tools:
	@scripts/host-tools.sh

plugins: host-tools ## Build the bundled plugins to WebAssembly (sets up the toolchain if it is missing)
	@scripts/build-plugins.sh

build: plugins ## Build target/release/weir with the plugins inside
	$(CARGO) build --release --locked --bin weir

install: build ## Install to PREFIX=/usr/local (and DESTDIR)
	install -d "$(DESTDIR)$(PREFIX)/bin"
	install -m 755 $(TARGET)/release/weir "$(DESTDIR)$(PREFIX)/bin/weir"

run: plugins ## Run the daemon with monitor.ron (ARGS=... are passed on)
	$(CARGO) build --locked --bin weir
	$(TARGET)/debug/weir run $(ARGS)

demo: plugins ## Show the main job on a replayed ComfyUI, without any setup
	$(CARGO) build --locked --bin weir
	$(TARGET)/debug/weir demo $(ARGS)

test-plugins: plugins ## Test the plugins natively, and ComfyUI's companion with Python's own unittest
	cd plugins/comfyui/companion && python3 -m unittest
ifneq ($(NEXTEST),)
	cd plugins && $(CARGO) nextest run --locked --workspace
else
	cd plugins && $(CARGO) test --locked --workspace --lib --tests
endif
	cd plugins && $(CARGO) test --locked --doc -p weir-sdk

guests: host-tools ## Build the example plugins in Rust, Python, JavaScript and C (sets up the tools if they are missing)
	@scripts/build-guests.sh

test-guests: plugins guests ## Test the plugins of all four languages in the real host
ifneq ($(NEXTEST),)
	WEIR_GUESTS=required $(CARGO) nextest run --locked --workspace -E 'test(guests::)'
else
	WEIR_GUESTS=required $(CARGO) test --locked --workspace --test it guests::
endif

guest-figures: plugins guests ## Print what a plugin costs, by language
	WEIR_GUESTS=required $(CARGO) test --locked --workspace --test it guests::figures -- --nocapture

test: test-plugins ## Run every test
	$(CARGO) test --locked --workspace --doc
ifneq ($(NEXTEST),)
	$(CARGO) nextest run --locked --workspace
else
	$(CARGO) test --locked --workspace --lib --bins --tests
endif
	@for language in rust python js c; do \
		test -e examples/plugins/target/$$language-unruly.wasm || missing="$$missing $$language"; \
	done; \
	test -z "$$missing" || echo "skipped: the tests of plugins in$$missing, which are not built here; make test-guests builds and tests them" >&2

test-crash: plugins ## kill -9 in a loop, 50 rounds, and the disk's failures under strace
	WEIR_CRASH_ROUNDS=50 $(CARGO) test --locked --workspace --test journal crash

bench: plugins ## Print every promised figure against its limit (ARGS="pipeline" for one part of it)
	$(CARGO) bench --locked --bench figures -- $(ARGS)

bench-smoke: plugins ## The benches at 1/100 scale: they run, their figures mean nothing
	WEIR_BENCH_SCALE=0.01 $(CARGO) bench --locked --profile dev --bench figures

fmt: ## Format everything
	$(CARGO) fmt --all
	cd plugins && $(CARGO) fmt --all

lint: plugins ## Format check and clippy, warnings are errors
	$(CARGO) fmt --all --check
	cd plugins && $(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	cd plugins && $(CARGO) clippy --locked --workspace --all-targets -- -D warnings

wall: ## The model stays free of any runtime
	! $(CARGO) tree --locked -p weir-model -e normal -i tokio 2>/dev/null | grep -q .
	! $(CARGO) tree --locked -p weir-core -e normal -i actix-web 2>/dev/null | grep -q .

doc: plugins ## Build the documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps
	cd plugins && RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps

check: lint wall test doc ## Everything that CI runs
