/* SPDX-License-Identifier: MIT */
/* xenidc-bench: what was asked for, and what was measured. */
#ifndef XI_BENCH_BENCH_H
#define XI_BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <xenidc/xenidc.h>

#include "tools/bench/probe.h"
#include "tools/common/hist.h"
#include "tools/common/place.h"

/* How much of the data in buffers is filled by its sender and checked by its receiver. */
enum xi_verify {
	XI_VERIFY_NONE = 0,  /* nothing: the buffers are passed, and not even looked at */
	XI_VERIFY_STAMP = 1, /* one word a page: finds what was lost, stale or misplaced */
	XI_VERIFY_FULL = 2,  /* every byte */
};

/* How buffers are filled; see xi_pattern_stream(). */
enum xi_fill { XI_FILL_AUTO = 0, XI_FILL_STORE = 1, XI_FILL_STREAM = 2 };

struct xi_bench {
	const char *verb;
	const char *address;
	size_t size;
	bool inline_data; /* in the payload of request and reply; else in buffers: */
	bool out, in;     /* which directions are lent */
	enum xi_verify verify;
	enum xi_fill fill;     /* AUTO: STREAM if the line ping-pong says that the cores share no cache */
	unsigned slots, depth; /* buffers of each direction; requests in flight */
	size_t payload;        /* inline payload that is asked for */
	enum xenidc_wait wait;
	bool map, digest, json;
	bool peer;      /* the serving side runs already */
	bool watch;     /* each loop watches a descriptor besides, so that it cannot sleep on a futex alone */
	double seconds; /* to measure for, unless: */
	uint64_t count;
	int cpu[2];         /* of the client, of the serving side; -1: anywhere */
	const char *probes; /* letters of the ones to take */
	unsigned probe_ms;
	const char *cc;    /* congestion control of the raw TCP probes */
	unsigned channels; /* verb idle */
	bool once;         /* verb serve: end with the last channel */
	int ready_fd;      /* verb serve: write the address here; -1: say it on stdout */
};

struct xi_outcome {
	char transport[16];
	uint64_t connect_ns, first_ns, ops, mismatches;
	double seconds;
	double cpu_client_s, cpu_server_s, steal_s;
	double sleeps_client_s, sleeps_server_s; /* times that each process went to sleep, a second */
	struct xenidc_stats stats;
	struct xi_hist hist; /* ticks */
	struct xi_hist rate; /* operations a second, of windows of 10 ms: what a moment of disturbance cannot spoil */
	double l_before_ns, l_after_ns;
	struct xi_probes probes;
};

/* options.c: 0 or an exit code. */
int xi_bench_parse(struct xi_bench *b, int argc, char **argv);
int xi_bench_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *xi_wait_name(enum xenidc_wait wait);
const char *xi_fill_name(enum xi_fill fill);
const char *xi_verify_name(enum xi_verify verify);

/* run.c: verbs lat, bw, rate and idle. */
int xi_bench_run(struct xi_bench *b);

/* run.c: all that are asked for but L, which belongs immediately before and after a measurement. */
void xi_take_probes(const struct xi_bench *b, struct xi_probes *p);

/* report.c */
void xi_report(const struct xi_bench *b, const struct xi_outcome *o);
void xi_report_probes(const struct xi_bench *b, const struct xi_probes *p);

#endif
