# `make` lists what can be made.

# How often `make torture` kills, cuts and restarts, and how many seeds of the simulator it runs.
ROUNDS = 300
SEEDS = 1000000
# How many runs `make fuzz` has.
FUZZ_RUNS = 50000000

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

.PHONY: demo
demo: PACKAGES = postgresql
demo: servers ## a migration between two throw-away servers, from the copy to the proof: a minute, and the build
	@echo "building cdc first; that takes a few minutes the first time"
	@cargo run --release --locked -- demo

# The files of tests. Most wait for a server most of the time, so those of LONG run beside the others, which take about as
# long together.
TESTS = $(patsubst tests/%,%,$(patsubst %.rs,%,$(patsubst %/main.rs,%,$(wildcard tests/*.rs tests/*/main.rs))))
LONG = torture memory cutover demo operate refuse_outside serve reverse notify vector stream_examples
# Those that run once more without a superuser.
AS_OWNER = stream stream_columns stream_identity stream_partitions stream_blocked copy_tables copy_moves drop \
           examples repair skip status

.PHONY: test
test: servers vector ## install what the tests need, then format, lints, docs, tests, dependencies
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-Dwarnings -Arustdoc::private_intra_doc_links" \
	  cargo doc --no-deps --locked --document-private-items
	cargo test --locked --no-run
	@echo "cargo test --locked; beside it $(LONG), and then as an ordinary owner of both databases $(AS_OWNER)"; \
	{ cargo test --locked --no-fail-fast $(LONG:%=--test %); long=$$?; \
	  CDC_TEST_ROLE=owner RUST_TEST_THREADS=2 \
	    cargo test --locked --no-fail-fast $(AS_OWNER:%=--test %) && exit $$long; } >target/beside.log 2>&1 & \
	RUST_TEST_THREADS=4 \
	  cargo test --locked --no-fail-fast --lib --bins $(patsubst %,--test %,$(filter-out $(LONG),$(TESTS))); \
	failed=$$?; wait $$! || failed=1; cat target/beside.log; exit $$failed
	cargo test --locked --doc
	@for program in chromium prometheus promtool; do \
	  command -v $$program >/dev/null || \
	    echo "$$program is not installed: what the daemon serves was not tried with it"; \
	done
	@if cargo deny --version >/dev/null 2>&1; then \
	  echo "cargo deny check bans licenses sources"; \
	  cargo deny --log-level error check bans licenses sources; \
	else \
	  echo "cargo-deny is not installed: bans, licences and sources were not checked"; \
	fi

.PHONY: build
build: ## build cdc as it is to be installed
	cargo build --release --locked

# Where `make install` puts things; DESTDIR goes before all of it. The configuration is made once, for
# root's eyes only, and is never overwritten.
PREFIX = /usr/local
SYSCONFDIR = /etc
BINARY = target/release/cdc
UNITS = cdc.service cdc@.service
DOC = $(PREFIX)/share/doc/cdc

.PHONY: install
install: ## install what `make build` has built, the systemd units and /etc/cdc/cdc.toml, as root
	install -D -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/cdc
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(SYSCONFDIR)/cdc
	for unit in $(UNITS); do \
	  sed 's|/usr/local/|$(PREFIX)/|; s|:/etc/|:$(SYSCONFDIR)/|' systemd/$$unit \
	    | install -m 644 /dev/stdin $(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit || exit; \
	done
	install -D -m 644 -t $(DESTDIR)$(DOC) README.md systemd/cdc.toml monitoring/*
	[ -e $(DESTDIR)$(SYSCONFDIR)/cdc/cdc.toml ] || \
	  install -m 600 systemd/cdc.toml $(DESTDIR)$(SYSCONFDIR)/cdc/cdc.toml

.PHONY: uninstall
uninstall: ## remove what `make install` has installed, but for the configuration
	rm -f $(DESTDIR)$(PREFIX)/bin/cdc $(UNITS:%=$(DESTDIR)$(PREFIX)/lib/systemd/system/%)
	rm -rf $(DESTDIR)$(DOC)

.PHONY: test-matrix
test-matrix: PACKAGES = pgbouncer
test-matrix: servers ## the end-to-end tests between the versions 14 to 18 (PAIRS="15:17 ..."), each fetched once, and a table of the results
	@tests/servers/matrix.sh $(PAIRS)

# Parts of the benchmark, all without it: w1 w2 w3 w4u w4d latency growth copy verify switch.
ONLY =

.PHONY: bench
bench: PACKAGES = postgresql
bench: servers ## measure cdc beside native replication, pgcopydb, pg_dump, and what the source can send; a table and a chart
	@$(MAKE) -s servers PACKAGES=pgcopydb || echo "pgcopydb is not measured"
	cargo bench --locked --bench speed -- $(ONLY)

.PHONY: fuzz
fuzz: ## any bytes into the decoder, any text into the configuration: FUZZ_RUNS times (50 million) in all
	cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
	@mkdir -p fuzz/corpus/decode fuzz/corpus/config
	cargo fuzz run --sanitizer none decode -- -max_len=2048 -runs=$$(($(FUZZ_RUNS) * 4 / 5))
	cargo fuzz run --sanitizer none config fuzz/corpus/config fuzz/seeds/config -- -runs=$$(($(FUZZ_RUNS) / 5))

.PHONY: torture
torture: servers ## a million simulated runs (SEEDS); kill, cut and restart, ROUNDS times (300); three million rows under load; five million verified under it
	CDC_SIMULATOR_SEEDS=$(SEEDS) cargo test --release --locked --lib simulator::seeds::every -- --nocapture
	CDC_TORTURE_ROUNDS=$(ROUNDS) cargo test --release --locked --test torture --test copy --test memory --test verify -- --ignored --nocapture

.PHONY: vector
vector: # PostgreSQL 16 and 18 with pgvector, for the tests between them
	@tests/servers/fetch.sh vector

# The PostgreSQL server and, for the tests, pgbouncer, systemd-analyze and libfaketime, installed with apt
# if they are missing. (Debian starts a server of its own then, on port 5432. Ours are started on other ports
# and never touch it.)
PACKAGES = postgresql postgresql-contrib pgbouncer systemd libfaketime

.PHONY: servers
servers:
	@export PATH="$$PATH:/usr/sbin"; \
	has_postgres() { \
	  for bin in "$$CDC_PG_BIN" /usr/lib/postgresql/*/bin "$$(dirname "$$(command -v initdb)")"; do \
	    if [ -x "$$bin/postgres" ] && [ -x "$$bin/initdb" ]; then return 0; fi; \
	  done; \
	  return 1; \
	}; \
	has() { \
	  case " $(PACKAGES) " in *" $$1 "*) command -v "$$2" >/dev/null;; esac; \
	}; \
	has_faketime() { \
	  case "$(PACKAGES)" in *faketime*) ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1;; esac; \
	}; \
	if has_postgres && has pgbouncer pgbouncer && has systemd systemd-analyze && has pgcopydb pgcopydb && has_faketime; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then as_root=env; else as_root=sudo; fi; \
	if ! { command -v apt-get && command -v "$$as_root"; } >/dev/null; then \
	  echo "Something is missing here. On Debian and Ubuntu, as root: apt-get install $(PACKAGES)" >&2; \
	  echo "A PostgreSQL that is somewhere else is found through CDC_PG_BIN, its bin directory." >&2; \
	  exit 1; \
	fi; \
	echo "installing $(PACKAGES)"; \
	$$as_root apt-get update -qq && \
	$$as_root env DEBIAN_FRONTEND=noninteractive \
	  apt-get install -y -qq --no-install-recommends $(PACKAGES) >/dev/null
