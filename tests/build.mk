# SPDX-License-Identifier: MIT
#
# Test programs. In each folder F of TEST_DIRS, F/test_NAME.c is a program of its own, build/test/F/test_NAME (also
# build/asan/..., build/tsan/..., build/gcov/...); every other .c file there helps all programs of that folder. Files in
# tests/lib help all. TEST_USES_F names folders whose helpers F needs besides. tests/fuzz/fuzz_NAME.c is a target of
# libFuzzer, build/fuzz/fuzz/fuzz_NAME.
TEST_DIRS := unit conformance sim hostile chaos
TEST_USES_conformance := sim
TEST_USES_fuzz := hostile

test_programs = $(patsubst tests/%.c,$(BUILD)/$1/%,$(sort $(wildcard tests/$2/test_*.c)))
test_helpers  = $(filter-out tests/$1/test_% tests/$1/fuzz_%,$(sort $(wildcard tests/$1/*.c)))
# $(call test_dir,FLAVOUR,DIR,test or fuzz): the programs of a folder, and what helps them
define test_dir
$(if $(call test_helpers,$2),$(BUILD)/$1/$2/helpers.a: $(call objects,$1,$(call test_helpers,$2)); $$(archive))
$(if $(filter lib,$2),,$(foreach p,$(wildcard tests/$2/$3_*.c),$(call program,$1,$(p:tests/%.c=$(BUILD)/$1/%),$p,\
	$(foreach d,$2 $(TEST_USES_$2) lib,$(if $(call test_helpers,$d),$(BUILD)/$1/$d/helpers.a)) $(call library,$1))))
.PHONY: $1-$2
$1-$2: $(call test_programs,$1,$2)
endef
$(foreach f,test asan tsan gcov,$(foreach d,$(TEST_DIRS) lib,$(eval $(call test_dir,$f,$d,test))))
$(foreach d,fuzz hostile lib,$(eval $(call test_dir,fuzz,$d,fuzz)))
FUZZERS := $(patsubst tests/%.c,$(BUILD)/fuzz/%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
.PHONY: fuzzers
fuzzers: $(FUZZERS)

# All objects once more, by the other compiler (nothing is linked).
.PHONY: clang
clang: $(call objects,clang,$(LIB_SRCS) $(shell find tools docs/examples -name '*.c' 2>/dev/null)) \
	$(patsubst %.c,$(BUILD)/asan/obj/%.o,$(foreach d,$(TEST_DIRS) lib,$(wildcard tests/$d/*.c)))

.PHONY: tests
tests: $(foreach d,$(TEST_DIRS),$(call test_programs,test,$d))

include tests/suites.mk

.PHONY: check check-fast setup coverage fuzz soak
## make check            everything: installs what is missing, builds it with both compilers, runs all suites
check:
	@tests/setup check
	@+MAKE="$(MAKE)" BUILD=$(BUILD) JOBS=$(JOBS) tests/check $(SUITES)
## make check-fast       the part of it that takes less than three minutes
check-fast:
	@tests/setup check
	@+MAKE="$(MAKE)" BUILD=$(BUILD) JOBS=$(JOBS) tests/check $(SUITES_FAST)
## make coverage         lines and branches that the tests reach, for each file
coverage: gcov-unit gcov-hostile gcov-conformance gcov-sim
	@find $(BUILD)/gcov -name '*.gcda' -delete
	-@BUILD=$(BUILD) tests/run -t 900 -j $(JOBS) coverage \
		$(foreach d,unit hostile,$(foreach p,$(call test_programs,gcov,$d),"$d-$(notdir $p): $p")) \
		$(foreach p,mapped stream window,"$p: $(call simulator,gcov) $p --seeds 1-20") \
		$(call columns,gcov,$(COLUMNS))
	@tests/coverage $(BUILD)/gcov/obj
## make fuzz             the fuzzers for longer: FUZZ_SECONDS (600) for all together
fuzz:
	@+$(MAKE) --no-print-directory suite-fuzz $(if $(filter file,$(origin FUZZ_SECONDS)),FUZZ_SECONDS=600)
## make soak             simulator, kills, hostile peers and fuzzers with other dice, for HOURS (1)
HOURS ?= 1
soak: test-sim test-chaos asan-hostile fuzzers
	@BUILD=$(BUILD) tests/soak $(HOURS)
## make suite-NAME       one suite: SUITES
## make tests            build all test programs: build/test/*/test_*
## make setup            install what `make check` needs, and nothing else
setup:
	@tests/setup check
