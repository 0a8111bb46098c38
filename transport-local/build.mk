# SPDX-License-Identifier: MIT
# Transports over shared memory.
LIB_SRCS += $(sort $(wildcard transport-local/*.c transport-local/shm/*.c))
