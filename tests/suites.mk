# SPDX-License-Identifier: MIT
#
# The suites of `make check`, in the order in which they run: cheap ones first. SUITES_FAST are those of
# `make check-fast`. A suite NAME is a target suite-NAME, which builds what it needs and gives its tests to $(RUN).
SUITES_FAST := house unit examples tools package
SUITES      := $(SUITES_FAST) build conformance asan tsan

# Tests of a suite are programs, or "NAME: command"; see tests/run.
RUN = BUILD=$(BUILD) tests/run
.PHONY: $(SUITES:%=suite-%)

# The rules of the house, each with its self-test. Those about objects look at the normal build.
HOUSE := $(filter-out lib.sh,$(notdir $(wildcard tests/house/*)))
suite-house: lib
	@$(RUN) -j $(JOBS) house $(foreach h,$(HOUSE),"$h: tests/house/$h" "$h-bites: tests/house/$h --self-test")

# Everything, by both compilers, without a warning.
suite-build:
	@$(RUN) -t 600 build "gcc: $(MAKE) -j$(JOBS) all tests WERROR=-Werror" \
		"clang: $(MAKE) -j$(JOBS) clang WERROR=-Werror" "headers: tests/package/headers"

suite-unit: test-unit
	@$(RUN) -j $(JOBS) unit $(call test_programs,test,unit)

suite-examples: all
	@$(RUN) -t 120 examples "examples: tests/examples.sh $(BUILD)/examples"

suite-tools: all
	@$(RUN) -t 120 tools "tools: tests/tools.sh $(BUILD)/bin"

suite-package: all
	@$(RUN) -t 120 package "install: tests/package/install" "readme: tests/package/readme"

suite-conformance: test-conformance
	@$(RUN) -t 300 conformance $(call test_programs,test,conformance)

# Everything that runs inside one process or a few, with AddressSanitizer and UndefinedBehaviorSanitizer.
suite-asan: asan-unit asan-conformance
	@$(RUN) -t 600 asan $(call test_programs,asan,unit) $(call test_programs,asan,conformance)

suite-tsan: tsan-unit tsan-conformance
	@$(RUN) -t 900 tsan $(call test_programs,tsan,unit) $(call test_programs,tsan,conformance)
