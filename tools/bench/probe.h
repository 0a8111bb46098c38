/* SPDX-License-Identifier: MIT */
/*
 * Limits of this machine, measured the same minute as what is compared with them. Round trips and single copies, as
 * medians in nanoseconds; 0: not measured (spinning probes need two cores).
 */
#ifndef XI_BENCH_PROBE_H
#define XI_BENCH_PROBE_H

#include <stddef.h>

struct xi_probes {
	double l_ns;          /* a cache line to the other core and back: nothing between two cores is faster */
	double c1_ns;         /* copy `size` bytes that the other core has just written, once */
	double w_ns;          /* futex wake there, and back */
	double e_ns;          /* eventfd and epoll there, and back */
	double t_ns;          /* raw TCP over loopback, both ends spinning, `size` bytes there and back */
	double b_bytes_per_s; /* raw TCP over loopback, both ends spinning, one way */
	double s_ns;          /* the same xenidc work with both ends in one thread: its software alone */
};

struct xi_bench;

/* Throughput is the median of windows of this length, so that a moment of disturbance does not spoil it. */
#define XI_BENCH_WINDOW_NS 1e7

/* The probes between two cores run one child each, on b->cpu[1], while the caller runs on b->cpu[0]. */
double xi_probe_line(const struct xi_bench *b);
double xi_probe_copy(const struct xi_bench *b);
double xi_probe_futex(const struct xi_bench *b);
double xi_probe_eventfd(const struct xi_bench *b);
double xi_probe_tcp_latency(const struct xi_bench *b);
double xi_probe_tcp_bulk(const struct xi_bench *b);
double xi_probe_self(const struct xi_bench *b);

/* Run a function in a child on b->cpu[1]; it gets `arg` and is killed by xi_probe_end(), or with its parent. */
typedef void xi_probe_child(void *arg);
int xi_probe_begin(const struct xi_bench *b, xi_probe_child *fn, void *arg);
void xi_probe_end(int pid);
/* Memory shared with such a child; zeroed; NULL if there is none. */
void *xi_probe_memory(size_t size);
void xi_probe_memory_free(void *memory, size_t size);

#endif
