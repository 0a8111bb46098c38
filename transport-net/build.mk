# SPDX-License-Identifier: MIT
# Transports between hosts.
LIB_SRCS += $(sort $(wildcard transport-net/*.c transport-net/tcp/*.c))
