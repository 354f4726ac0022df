# What a newcomer needs is `make run` and `make test`; `make help` lists the rest.

SESSIOND := target/release/sessiond
VENV := .venv
PYTHON := $(VENV)/bin/python

.PHONY: run demo drill test check sim model nemesis nemesis-net parity conformance clients certs fuzz bench soak growth hitratio build help

run: build ## three nodes on 127.0.0.1, .2 and .3, port 11211, until Ctrl-C
	@exec tests/cluster/run.sh $(SESSIOND)

demo: build $(VENV)/ready ## Django users on three nodes; one node is killed
	@$(PYTHON) tests/e2e/demo.py

drill: build $(VENV)/ready ## Django users while nodes die, hang, restart, are upgraded; beside memcached. DRILL="--runs 5"
	$(PYTHON) tests/drill/drill.py $(DRILL)

test: build $(VENV)/ready ## everything: unit, tidy, simulation, model, wire scripts, real processes with real Django, conformance
	cargo test --locked
	$(PYTHON) -m pytest tests/e2e tests/drill
	python3 tests/conformance/run.py --short --or-skip

check: ## format, lints, the rules of the house, docs
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo test --locked --test tidy
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

certs: ## a test authority and certificates for NAMES (web1 web2 web3) in DIR (target/certs), for DAYS (30)
	@cargo run --quiet --locked --release --example certs -- $${DIR:-target/certs} $${DAYS:-30} $${NAMES:-web1 web2 web3}

sim: ## the simulation alone; SEED=n replays one seed, SEEDS=n runs so many
	cargo test --locked --test sim promises -- --nocapture

nemesis: ## three processes under faults; ROUNDS=n, SECONDS=n, SEED=n, FAULTS=all or names; KILLS=n for kills alone
	ROUNDS=$${ROUNDS:-1} cargo test --locked --test nemesis $(if $(KILLS),killed,promises) -- --nocapture

nemesis-net: ## groups of three and five on a network of the test's own, as root: cuts, resets, loss, delay; ROUNDS=n, SEED=n, NODES=n, FAULTS=names
	ROUNDS=$${ROUNDS:-1} cargo test --locked --test nemesis network -- --nocapture

model: ## the model of the replication protocol, in larger bounds, a minute or two; ONLY="two operations" for one of them
	MODEL_FULL=1 cargo test --locked --test model -- --nocapture --test-threads=1

parity: build ## the wire scripts against stock memcached (Debian's package) as well as against us
	PARITY=stock cargo test --locked --test wire -- --nocapture

conformance: build ## memcached's own test suite, from Debian's source package, against us
	python3 tests/conformance/run.py

clients: build ## foreign client libraries, from Debian, PyPI and npm, on one node and on three
	python3 tests/clients/run.py --binary $(SESSIOND)

fuzz: ## a minute of fuzzing each target; needs cargo-fuzz. FUZZ_SECONDS=n for longer
	cd tests/fuzz && for target in connection parser frame peers handshake state_file; do \
	    RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir . -s none $$target -- \
	        -max_len=8192 -max_total_time=$${FUZZ_SECONDS:-60} || exit 1; done

# The feature changes one function that runs at the start. Without it sessiond cannot start under valgrind.
BENCH ?= --memory --group --replicated --rejoin --instructions
bench: build ## beside stock memcached (Debian's package); BENCH="--quick" for a short run
	cargo bench --locked --bench request
	cargo bench --locked --bench versus --features rustix/use-libc-auxv -- $(BENCH)

soak: ## stores under random load, every byte accounted for; SOAK_SECONDS=n (600), SOAK_SEED=n, SOAK_THREADS=n
	cargo bench --locked --bench soak

growth: ## the longest single insertion while stores grow to ten million items; takes 2 GB
	cargo bench --locked --bench growth

hitratio: ## how often a full server finds what is looked for, beside stock memcached (Debian's package)
	cargo bench --locked --bench hitratio

build:
	cargo build --locked --release

# The stamp is rewritten when the requirements change.
$(VENV)/ready: tests/e2e/requirements.txt
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --requirement $<
	touch $@

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 13
