# SPDX-License-Identifier: MIT
# The engine, its leaf base/ and the calls into the operating system, os/.
LIB_SRCS += $(sort $(wildcard xenidc-core/*.c xenidc-core/base/*.c xenidc-core/os/*.c))
# For os/os_uring.c, which does without where the kernel does not allow it.
LIBS += $(shell pkg-config --libs liburing 2>/dev/null || echo -luring)
