/* SPDX-License-Identifier: MIT */
/* Test data that depends on place and number: what is lost, stale, torn or misplaced does not match. */
#ifndef XI_BENCH_PATTERN_H
#define XI_BENCH_PATTERN_H

#include "tools/bench/bench.h"

/*
 * Fill past the caches from now on. Cores that share no cache make an ordinary store of a line, which the other one has
 * just read, wait for it to be given up: 25 us for 64 KiB instead of 2. Cores that share one lose 2 us by it.
 */
void xi_pattern_stream(bool on);

/* `number` names the data; use another for each operation and direction. */
void xi_pattern_fill(void *to, size_t size, uint64_t number, enum xi_verify how);
bool xi_pattern_check(const void *from, size_t size, uint64_t number, enum xi_verify how);

#endif
