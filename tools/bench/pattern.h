/* SPDX-License-Identifier: MIT */
/* Test data that depends on place and number: what is lost, stale, torn or misplaced does not match. */
#ifndef XI_BENCH_PATTERN_H
#define XI_BENCH_PATTERN_H

#include "tools/bench/bench.h"

/* `number` names the data; use another for each operation and direction. */
void xi_pattern_fill(void *to, size_t size, uint64_t number, enum xi_verify how);
bool xi_pattern_check(const void *from, size_t size, uint64_t number, enum xi_verify how);

#endif
