# SPDX-License-Identifier: MIT
#
# The suites of `make check`, in the order in which they run: cheap ones first. SUITES_FAST are those of
# `make check-fast`. A suite NAME is a target suite-NAME, which builds what it needs and gives its tests to $(RUN).
SUITES_FAST := house unit examples tools package
SUITES      := $(SUITES_FAST) build conformance asan asan-conformance tsan tsan-conformance hostile kills mutants \
	fuzz sim

# Tests of a suite are programs, or "NAME: command"; see tests/run.
RUN = BUILD=$(BUILD) tests/run
# What is not only passed or failed: shown when its suite is through.
TABLES := $(BUILD)/tables
.PHONY: $(SUITES:%=suite-%)

# The rules of the house, each with its self-test. Those about objects look at the normal build; `unused` wants to see
# what tests use, too, and comes with the suite that builds everything.
HOUSE := $(filter-out lib.sh unused,$(notdir $(wildcard tests/house/*)))
suite-house: lib
	@$(RUN) -j $(JOBS) house $(foreach h,$(HOUSE),"$h: tests/house/$h" "$h-bites: tests/house/$h --self-test")

# Everything, by both compilers, without a warning.
suite-build:
	@$(RUN) -t 600 build "gcc: $(MAKE) -j$(JOBS) all tests WERROR=-Werror" \
		"clang: $(MAKE) -j$(JOBS) clang WERROR=-Werror" "headers: tests/package/headers" \
		"unused: tests/house/unused" "unused-bites: tests/house/unused --self-test"

suite-unit: test-unit
	@$(RUN) -j $(JOBS) unit $(call test_programs,test,unit)

suite-examples: all
	@$(RUN) -t 120 examples "examples: tests/examples.sh $(BUILD)/examples"

suite-tools: all
	@$(RUN) -t 120 tools "tools: tests/tools.sh $(BUILD)/bin"

suite-package: all
	@$(RUN) -t 120 package "install: tests/package/install" "readme: tests/package/readme" \
		"manuals: tests/package/manuals"

# A column of the conformance suite is a test.
COLUMNS  := $(shell sed -n 's/^.*{ \.name = "\([a-z-]*\)".*/\1/p' tests/conformance/columns.c)
columns   = $(foreach c,$2,"$c: $(BUILD)/$1/conformance/test_conformance --column $c")

suite-conformance: test-conformance
	@mkdir -p $(TABLES)
	@$(RUN) -t 600 conformance $(foreach c,$(COLUMNS),"$c: set -o pipefail; \
		$(BUILD)/test/conformance/test_conformance --column $c | tee $(TABLES)/conformance-$c")
	@tests/table $(COLUMNS:%=$(TABLES)/conformance-%)

# With AddressSanitizer and UndefinedBehaviorSanitizer; with ThreadSanitizer.
suite-asan: asan-unit
	@$(RUN) -t 300 -j $(JOBS) asan $(call test_programs,asan,unit)
suite-asan-conformance: asan-conformance
	@$(RUN) -t 900 asan-conformance $(call columns,asan,$(COLUMNS))
suite-tsan: tsan-unit
	@$(RUN) -t 300 -j $(JOBS) tsan $(call test_programs,tsan,unit)
suite-tsan-conformance: tsan-conformance
	@$(RUN) -t 900 tsan-conformance $(call columns,tsan,$(filter-out sim-%,$(COLUMNS)))

suite-hostile: asan-hostile
	@$(RUN) -t 300 hostile $(call test_programs,asan,hostile)

# FUZZ_SECONDS for all targets together.
FUZZ_SECONDS ?= 30
fuzz_each = $(shell echo $$(($1 / ($(words $(FUZZERS)) + !$(words $(FUZZERS))) + 1)))
suite-fuzz: fuzzers
	@$(RUN) -t $$(($(call fuzz_each,$(FUZZ_SECONDS)) + 60)) -j $(JOBS) fuzz $(foreach f,$(FUZZERS),"$(notdir $f): \
		tests/fuzz-run $(call fuzz_each,$(FUZZ_SECONDS)) $f")

# The general run of each personality (kept seeds first), and the tests that look at one thing.
SIM_SEEDS ?= 500
simulator = $(BUILD)/$1/sim/test_simulator --quiet --personality
histogram = $(BUILD)/test/sim/test_simulator --personality $1 $2 | tee $(TABLES)/histogram-$1
suite-sim: test-sim asan-sim
	@mkdir -p $(TABLES)
	@$(RUN) -t 900 -j $(JOBS) sim $(filter-out %/test_simulator,$(call test_programs,test,sim)) \
		"kept-and-mapped: set -o pipefail; $(call histogram,mapped)" \
		$(foreach p,stream window,"$p: set -o pipefail; $(call histogram,$p,--seeds 1-$(SIM_SEEDS))") \
		$(foreach p,mapped stream window,"$p-asan: $(call simulator,asan) $p --seeds 1-50")
	@$(foreach p,mapped stream window,echo "--- $p: state x event x fault"; cat $(TABLES)/histogram-$p || exit;)

# Small, wrong changes, each of which a test has to notice.
MUTANTS := $(sort $(wildcard tests/mutants/*))
suite-mutants: tests
	@$(RUN) -t 300 -j $(JOBS) mutants $(foreach m,$(MUTANTS),"$(notdir $m): tests/mutant $m")

suite-kills: test-chaos
	@$(RUN) -t 600 kills $(call test_programs,test,chaos)
