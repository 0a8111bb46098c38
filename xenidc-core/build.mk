# SPDX-License-Identifier: MIT
# The engine, its leaf base/ and the calls into the operating system, os/.
LIB_SRCS += $(sort $(wildcard xenidc-core/*.c xenidc-core/base/*.c xenidc-core/os/*.c))
