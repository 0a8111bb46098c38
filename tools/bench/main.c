/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench/bench.h"
#include "tools/bench/serve.h"
#include "tools/common/clock.h"
#include "tools/common/exits.h"

static int run_probes(struct xi_bench *b)
{
	struct xi_probes p = { 0 };

	(void)xi_pin(b->cpu[0]);
	if (strchr(b->probes, 'L'))
		p.l_ns = xi_probe_line(b);
	xi_take_probes(b, &p);
	xi_report_probes(b, &p);
	return XI_EXIT_OK;
}

static int run_serve(struct xi_bench *b)
{
	return xi_bench_serve(b);
}

static int run_help(struct xi_bench *b)
{
	(void)b;
	(void)puts(
		"xenidc-bench: how fast a channel is, and how fast it could be at best\n"
		"\n"
		"  xenidc-bench lat    one request at a time: round trips\n"
		"  xenidc-bench rate   32 requests in flight: operations a second\n"
		"  xenidc-bench bw     16 buffers of 64 KiB in flight, OUT: bytes a second\n"
		"  xenidc-bench idle   channels that do nothing: wake-ups and CPU\n"
		"  xenidc-bench probe  the limits of this machine alone\n"
		"  xenidc-bench serve  the serving side alone, for --peer\n"
		"\n"
		"One command does all: it starts the serving side as a process of its own, on another core, and ends "
		"it.\n"
		"\n"
		"  --address ADDRESS    shm:NAME or tcp:HOST:PORT; for tcp here: tcp:127.0.0.1:0 (a free name over "
		"shm)\n"
		"  --size N             bytes of data: inline in request and reply up to --payload, else in buffers,\n"
		"                       lent OUT and IN (8; bw 64K; serve: the largest one, 1M)\n"
		"  --refs out|in|inout  which buffers are lent (inout; bw: out)\n"
		"  --verify none|stamp|full  what is filled by the sender and checked by the receiver: nothing, not "
		"even\n"
		"                       looked at; a word a page; every byte (full; bw: stamp)\n"
		"  --fill auto|store|stream  how buffers are filled: by ordinary stores, or past the caches, which "
		"cores\n"
		"                       without a cache in common prefer (auto: as L says)\n"
		"  --wait spin|adaptive|block  how both sides wait (spin; idle: adaptive)\n"
		"  --map                the peer's pages in place, where the transport can\n"
		"  --digest             CRC32C over payloads, on byte streams\n"
		"  --seconds S | --count N  how long (1 s; idle 10 s), after a tenth of it as warm-up\n"
		"  --depth N            requests in flight (1; rate 32; bw 16)\n"
		"  --slots N            buffers of each direction, used in turn (16)\n"
		"  --payload N          largest inline payload (256)\n"
		"  --channels N         idle: channels (1)\n"
		"  --watch              each loop watches a descriptor besides: it cannot sleep on a futex alone\n"
		"  --cpus A,B           cores of client and serving side (the first two allowed); --cpu N for serve\n"
		"  --peer               `xenidc-bench serve` runs at the address already, with the same --size and "
		"--refs;\n"
		"                       on this host its spinning disturbs the probes\n"
		"  --probes LETTERS     which of the limits below are measured, none: '' (LCWETBS; idle: L)\n"
		"  --probe-ms N         length of each (100)\n"
		"  --cc NAME            congestion control of the raw TCP probes (reno, as the library on loopback)\n"
		"  --json               one JSON object\n"
		"\n"
		"Times are round trips. With buffers they include filling and checking the data on both sides.\n"
		"Limits, measured beside each result: L a cache line to the other core and back; C1 one copy of "
		"--size\n"
		"fresh from the other core; W futex wake and back; E eventfd and epoll and back; T raw TCP of --size, "
		"both\n"
		"ends spinning, and back; B raw TCP one way; S the same requests with both ends in one thread.\n"
		"\n"
		"Exit code 0: measured, all data were right. 1: wrong data, or no answer. 2: usage. 3: nobody "
		"answers.\n"
		"4: refused. 5: this machine lacks something. 6: the connection was lost.");
	return XI_EXIT_OK;
}

static const struct {
	const char *name;
	int (*run)(struct xi_bench *b);
} verbs[] = {
	{ "lat", xi_bench_run }, { "rate", xi_bench_run }, { "bw", xi_bench_run }, { "idle", xi_bench_run },
	{ "probe", run_probes }, { "serve", run_serve },   { "help", run_help },   { "--help", run_help },
};

int main(int argc, char **argv)
{
	static struct xi_bench b;
	int e;

	if (argc > 1 && !strcmp(argv[1], "--version")) {
		(void)printf("xenidc-bench %s\n", xenidc_version());
		return XI_EXIT_OK;
	}
	for (size_t i = 0; argc > 1 && i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		if (strcmp(argv[1], verbs[i].name))
			continue;
		e = xi_bench_parse(&b, argc - 1, argv + 1);
		if (e)
			return e;
		xi_ticks_init();
		return verbs[i].run(&b);
	}
	return xi_bench_usage(argc > 1 ? "there is no verb '%.40s'" : "a verb is missing%.0s", argc > 1 ? argv[1] : "");
}
