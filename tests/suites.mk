# SPDX-License-Identifier: MIT
#
# The suites of `make check`, in the order in which they run: cheap ones first. SUITES_FAST are those of
# `make check-fast`. A suite NAME is a target suite-NAME, which builds what it needs and gives its tests to $(RUN).
SUITES      := house unit
SUITES_FAST := house unit

# Tests of a suite are programs, or "NAME: command"; see tests/run.
RUN = BUILD=$(BUILD) tests/run
.PHONY: $(SUITES:%=suite-%)

# The rules of the house, each with its self-test. Those about objects look at the normal build.
HOUSE := $(filter-out lib.sh,$(notdir $(wildcard tests/house/*)))
suite-house: lib
	@$(RUN) -j $(JOBS) house $(foreach h,$(HOUSE),"$h: tests/house/$h" "$h-bites: tests/house/$h --self-test")

suite-unit: test-unit
	@$(RUN) -j $(JOBS) unit $(call test_programs,test,unit)
