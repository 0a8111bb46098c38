# SPDX-License-Identifier: MIT
#
# xenidc: `make help` lists what can be made. How it is built stands here, what is built in one fragment a folder:
# xenidc-core/build.mk, transport-*/build.mk and usb/build.mk add to LIB_SRCS; tools/build.mk and tests/build.mk add
# programs and targets. Everything that is made lies below $(BUILD).

BUILD  ?= build
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR ?= $(PREFIX)/share/man
# Empty: warnings do not stop the build (for compilers newer than ours).
WERROR ?= -Werror
# How many jobs the long targets use at once.
JOBS   ?= $(shell nproc)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(origin CXX),default)
CXX := g++
endif
CLANG  ?= $(shell command -v clang-14 || echo clang)
CLANG  := $(CLANG)
FORMAT ?= clang-format-14

VERSION := $(shell awk '/^\#define XENIDC_VERSION_(MAJOR|MINOR|PATCH) / { v = v s $$3; s = "." } END { print v }' \
	include/xenidc/xenidc.h)
# The ABI is not stable before 1.0.0, so each minor version has a soname of its own.
SOVERSION := $(basename $(VERSION))

# ---------------------------------------------------------------------------------------------------------------------
# Flavours: one set of objects each, in $(BUILD)/FLAVOUR/obj.
#   normal   what is installed                         asan, tsan  test with a sanitizer
#   clang    the same, by the other compiler           gcov        test with coverage counters
#   test     internals visible, failpoints compiled in fuzz        asan with the hooks of libFuzzer
FLAVOURS := normal clang test asan tsan gcov fuzz

WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef -Wformat=2 $(WERROR)
C_FLAGS  := -std=gnu11 -g -pthread -I. -Iinclude $(WARNINGS)
TESTING  := -DXI_TESTING -DXI_DEBUG -DXI_FAILPOINTS

CC_normal := $(CC)
CC_clang  := $(CLANG)
CC_test   := $(CC)
CC_asan   := $(CLANG)
CC_tsan   := $(CLANG)
CC_gcov   := $(CC)
CC_fuzz   := $(CLANG)
FLAGS_normal := -O2 -fPIC -fvisibility=hidden
FLAGS_clang  := $(FLAGS_normal)
FLAGS_test   := -O2 $(TESTING)
FLAGS_asan   := -O1 $(TESTING) -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
FLAGS_tsan   := -O1 $(TESTING) -fno-omit-frame-pointer -fsanitize=thread
FLAGS_gcov   := -O0 -Wno-error $(TESTING) -DXI_COVERAGE --coverage -fprofile-update=atomic
FLAGS_fuzz   := $(FLAGS_asan) -fsanitize=fuzzer-no-link

# Commands that run at the same time as another make must not see each other's half-written files: write, then rename.
ifeq ($(V),)
say = @echo '  $1';
else
say =
endif
# $(call compile,FLAVOUR)
compile = $(call say,CC $1 $<)mkdir -p $(@D) && \
	$(CC_$1) $(C_FLAGS) $(FLAGS_$1) $(CFLAGS) -MMD -MP -MT $@ -MF $@.$$$$.d -c -o $@.$$$$ $< && \
	mv -f $@.$$$$.d $(@:.o=.d) && mv -f $@.$$$$ $@ || { rm -f $@.$$$$ $@.$$$$.d; exit 1; }
archive = $(call say,AR $@)mkdir -p $(@D) && rm -f $@.$$$$ && ar qcsD $@.$$$$ $(filter %.o,$^) && mv -f $@.$$$$ $@
# $(call link,FLAVOUR): objects, then archives in any order.
link = $(call say,LD $@)mkdir -p $(@D) && \
	$(CC_$1) $(FLAGS_$1) $(if $(filter fuzz,$1),-fsanitize=fuzzer) $(LDFLAGS) -pthread -o $@.$$$$ $(filter %.o,$^) \
	-Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS) && mv -f $@.$$$$ $@ || { rm -f $@.$$$$; exit 1; }

# $(call objects,FLAVOUR,SOURCES)
objects = $(patsubst %.c,$(BUILD)/$1/obj/%.o,$2)
# $(eval $(call program,FLAVOUR,OUTPUT,SOURCES,ARCHIVES)): a program of its own.
define program
$2: $(call objects,$1,$3) $4
	$$(call link,$1)

endef
# The library that a flavour's programs link.
library = $(if $(filter normal,$1),$(BUILD)/lib/libxenidc.a,$(BUILD)/$1/libxenidc$(if $(filter clang,$1),,_testing).a)

# ---------------------------------------------------------------------------------------------------------------------
# The library
LIB_SRCS :=
LIBS     :=
HEADERS  := $(filter-out include/xenidc/transport.h,$(wildcard include/xenidc/*.h))
-include $(wildcard xenidc-core/build.mk transport-*/build.mk usb/build.mk)

# Objects are made again when the flags change that they depend on.
flags = $(CC_$1) $(filter-out $(WERROR),$(C_FLAGS)) $(FLAGS_$1) $(CFLAGS)
define flavour
$(BUILD)/$1/flags: FORCE
	@mkdir -p $$(@D); echo '$$(call flags,$1)' | cmp -s - $$@ || echo '$$(call flags,$1)' >$$@
$(BUILD)/$1/obj/%.o: %.c $(BUILD)/$1/flags
	$$(call compile,$1)
endef
$(foreach f,$(FLAVOURS),$(eval $(call flavour,$f)))
# A file that is gone makes no object newer: the list of files is looked at, too.
SOURCES := $(BUILD)/sources
$(SOURCES): FORCE
	@mkdir -p $(@D); echo '$(LIB_SRCS)' | cmp -s - $@ || echo '$(LIB_SRCS)' >$@
$(foreach f,clang test asan tsan gcov fuzz,$(eval \
	$(call library,$f): $(call objects,$f,$(LIB_SRCS)) $(SOURCES); $$(archive)))

STATIC := $(BUILD)/lib/libxenidc.a
SHARED := $(BUILD)/lib/libxenidc.so.$(VERSION)
MAP    := xenidc-core/libxenidc.map

# One object in the archive, so that our internal names are local to it, as they are in the shared library.
$(STATIC): $(call objects,normal,$(LIB_SRCS)) $(SOURCES)
	$(call say,AR $@)d=$$(mktemp -d) && trap 'rm -rf "$$d"' EXIT && mkdir -p $(@D) && \
		$(CC_normal) -r -nostdlib -o $$d/xenidc.o $(filter %.o,$^) && \
		objcopy --localize-hidden $$d/xenidc.o && \
		ar qcsD $$d/xenidc.a $$d/xenidc.o && mv -f $$d/xenidc.a $@
$(SHARED): $(call objects,normal,$(LIB_SRCS)) $(MAP) $(SOURCES)
	$(call say,LD $@)mkdir -p $(@D) && \
		$(CC_normal) -shared $(LDFLAGS) -pthread -Wl,-soname,libxenidc.so.$(SOVERSION) \
		-Wl,--version-script=$(MAP) -Wl,-z,defs -Wl,-z,now -Wl,-z,relro -o $@.$$$$ $(filter %.o,$^) $(LIBS) && \
		mv -f $@.$$$$ $@
	@ln -sf $(notdir $@) $(BUILD)/lib/libxenidc.so.$(SOVERSION) && ln -sf $(notdir $@) $(BUILD)/lib/libxenidc.so

PROGRAMS :=
.PHONY: all lib
all: lib
lib: $(STATIC) $(SHARED)

-include $(wildcard tools/build.mk tests/build.mk)
all: $(PROGRAMS)

# ---------------------------------------------------------------------------------------------------------------------
.PHONY: install uninstall format help clean FORCE
FORCE:

help:
	@sed -n 's/^## //p' $(sort $(filter %.mk Makefile,$(MAKEFILE_LIST))) | \
		sed 's/SUITES/$(SUITES)/' | fold -s -w 110

MANPAGES := $(wildcard docs/man/*.[1-9])
INSTALLED = $(filter $(BUILD)/bin/%,$(PROGRAMS))
manpage   = $(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $1))/$(notdir $1)

$(BUILD)/xenidc.pc: include/xenidc/xenidc.h FORCE
	@mkdir -p $(@D) && printf '%s\n' 'prefix=$(PREFIX)' 'includedir=$(INCLUDEDIR)' 'libdir=$(LIBDIR)' '' \
		'Name: xenidc' 'Description: Split drivers over any transport' 'Version: $(VERSION)' \
		'Cflags: -I$${includedir}' 'Libs: -L$${libdir} -lxenidc' 'Libs.private: -pthread $(LIBS)' >$@

## make                  build the library and the tools: build/lib, build/bin
## make install          install them; PREFIX (/usr/local), DESTDIR, BINDIR, LIBDIR, INCLUDEDIR, MANDIR
install: all $(BUILD)/xenidc.pc
	install -d $(DESTDIR)$(INCLUDEDIR)/xenidc $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(BINDIR)
	install -m 644 $(HEADERS) $(DESTDIR)$(INCLUDEDIR)/xenidc
	install -m 644 $(STATIC) $(DESTDIR)$(LIBDIR)
	install -m 755 $(SHARED) $(DESTDIR)$(LIBDIR)
	ln -sf $(notdir $(SHARED)) $(DESTDIR)$(LIBDIR)/libxenidc.so.$(SOVERSION)
	ln -sf $(notdir $(SHARED)) $(DESTDIR)$(LIBDIR)/libxenidc.so
	install -m 644 $(BUILD)/xenidc.pc $(DESTDIR)$(LIBDIR)/pkgconfig
	$(if $(INSTALLED),install -m 755 $(INSTALLED) $(DESTDIR)$(BINDIR))
	$(foreach m,$(MANPAGES),install -D -m 644 $m $(call manpage,$m) && ) true
	$(if $(DESTDIR),,-ldconfig 2>/dev/null || true)

## make uninstall        remove what install put there (with the same variables)
uninstall:
	rm -f $(HEADERS:include/%=$(DESTDIR)$(INCLUDEDIR)/%) $(DESTDIR)$(LIBDIR)/pkgconfig/xenidc.pc
	rm -f $(addprefix $(DESTDIR)$(LIBDIR)/,$(notdir $(STATIC) $(SHARED)) libxenidc.so.$(SOVERSION) libxenidc.so)
	rm -f $(addprefix $(DESTDIR)$(BINDIR)/,$(notdir $(INSTALLED))) $(foreach m,$(MANPAGES),$(call manpage,$m))
	-rmdir --ignore-fail-on-non-empty $(DESTDIR)$(INCLUDEDIR)/xenidc

## make format           bring all C files into the form that .clang-format describes
format:
	$(FORMAT) -i $$(find xenidc-core transport-* usb tools tests include docs -name '*.[ch]' 2>/dev/null)

## make clean            remove everything that was built
clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
