/* SPDX-License-Identifier: MIT */
/* What the two sides of the benchmark say to each other: the first 8 bytes of every payload. */
#ifndef XI_BENCH_WIRE_H
#define XI_BENCH_WIRE_H

#include <stdint.h>

/* `op` and `verify` are one byte each, so only `number` has a byte order: little endian. */
struct xi_bench_head {
	uint8_t op;
	uint8_t verify; /* enum xi_verify */
	uint16_t zero;
	uint32_t number; /* names the data */
};
_Static_assert(sizeof(struct xi_bench_head) == 8, "the smallest request has 8 bytes");

enum {
	XI_BENCH_ECHO = 1,  /* the reply is the payload */
	XI_BENCH_DATA = 2,  /* OUT references are checked, IN references filled; the reply is the head */
	XI_BENCH_USAGE = 3, /* the reply is struct xi_bench_usage */
};

/* Status of a reply. */
enum { XI_BENCH_OK = 0, XI_BENCH_MISMATCH = 1, XI_BENCH_BAD_REQUEST = 2 };

/* What the serving process has used so far; little endian. */
struct xi_bench_usage {
	uint64_t cpu_ns, sleeps;
};

/* Data that travel OUT and IN under the same number must differ. */
static inline uint64_t xi_bench_number(uint32_t number, int in)
{
	return (uint64_t)number << 1 | (in ? 1 : 0);
}

#endif
