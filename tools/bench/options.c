/* SPDX-License-Identifier: MIT */
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/bench/bench.h"
#include "tools/bench/work.h"
#include "tools/common/exits.h"
#include "tools/common/text.h"

#define SIZE_MAX_BENCH (16u << 20)

enum {
	OPT_ADDRESS = 256,
	OPT_SIZE,
	OPT_WAIT,
	OPT_MAP,
	OPT_DIGEST,
	OPT_REFS,
	OPT_VERIFY,
	OPT_FILL,
	OPT_SLOTS,
	OPT_DEPTH,
	OPT_PAYLOAD,
	OPT_SECONDS,
	OPT_COUNT,
	OPT_JSON,
	OPT_PEER,
	OPT_WATCH,
	OPT_CPU,
	OPT_CPUS,
	OPT_PROBES,
	OPT_PROBE_MS,
	OPT_CC,
	OPT_CHANNELS,
	OPT_ONCE,
	OPT_READY_FD,
};

static const struct option options[] = {
	{ "address", required_argument, NULL, OPT_ADDRESS },
	{ "size", required_argument, NULL, OPT_SIZE },
	{ "wait", required_argument, NULL, OPT_WAIT },
	{ "map", no_argument, NULL, OPT_MAP },
	{ "digest", no_argument, NULL, OPT_DIGEST },
	{ "refs", required_argument, NULL, OPT_REFS },
	{ "verify", required_argument, NULL, OPT_VERIFY },
	{ "fill", required_argument, NULL, OPT_FILL },
	{ "slots", required_argument, NULL, OPT_SLOTS },
	{ "depth", required_argument, NULL, OPT_DEPTH },
	{ "payload", required_argument, NULL, OPT_PAYLOAD },
	{ "seconds", required_argument, NULL, OPT_SECONDS },
	{ "count", required_argument, NULL, OPT_COUNT },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "peer", no_argument, NULL, OPT_PEER },
	{ "watch", no_argument, NULL, OPT_WATCH },
	{ "cpu", required_argument, NULL, OPT_CPU },
	{ "cpus", required_argument, NULL, OPT_CPUS },
	{ "probes", required_argument, NULL, OPT_PROBES },
	{ "probe-ms", required_argument, NULL, OPT_PROBE_MS },
	{ "cc", required_argument, NULL, OPT_CC },
	{ "channels", required_argument, NULL, OPT_CHANNELS },
	{ "once", no_argument, NULL, OPT_ONCE },
	{ "ready-fd", required_argument, NULL, OPT_READY_FD },
	{ NULL, 0, NULL, 0 },
};

int xi_bench_usage(const char *format, ...)
{
	va_list args;

	(void)fputs("xenidc-bench: ", stderr);
	va_start(args, format);
	(void)vfprintf(stderr, format, args);
	va_end(args);
	(void)fputs("; see `xenidc-bench help`\n", stderr);
	return XI_EXIT_USAGE;
}

static const char *const waits[] = { "adaptive", "block", "spin" };
static const char *const fills[] = { "auto", "store", "stream" };
static const char *const verifies[] = { "none", "stamp", "full" };

const char *xi_wait_name(enum xenidc_wait wait)
{
	return waits[wait];
}

const char *xi_fill_name(enum xi_fill fill)
{
	return fills[fill];
}

const char *xi_verify_name(enum xi_verify verify)
{
	return verifies[verify];
}

/* The number of `word` among three; -1: none of them. */
static int one_of(const char *const names[3], const char *word)
{
	for (int i = 0; i < 3; i++)
		if (!strcmp(names[i], word))
			return i;
	return -1;
}

static bool parse_cpus(const char *text, int cpu[2])
{
	char end;

	return sscanf(text, "%d,%d%c", &cpu[0], &cpu[1], &end) == 2 && cpu[0] >= 0 && cpu[1] >= 0;
}

static bool parse_uint(const char *text, uint64_t min, uint64_t max, unsigned *ret)
{
	uint64_t value;

	if (!xi_parse_count(text, min, max, &value))
		return false;
	*ret = (unsigned)value;
	return true;
}

/* Options with a number. */
static bool parse_number(struct xi_bench *b, int o, const char *arg)
{
	uint64_t value = 0;
	unsigned fd = 0;
	bool good;

	switch (o) {
	case OPT_SIZE:
		good = xi_parse_size(arg, 8, SIZE_MAX_BENCH, &value);
		b->size = value;
		return good;
	case OPT_PAYLOAD:
		good = xi_parse_size(arg, 16, 16384, &value);
		b->payload = value;
		return good;
	case OPT_SLOTS:
		return parse_uint(arg, 1, XI_BENCH_DEPTH_MAX, &b->slots);
	case OPT_DEPTH:
		return parse_uint(arg, 1, XI_BENCH_DEPTH_MAX, &b->depth);
	case OPT_CHANNELS:
		return parse_uint(arg, 1, 250, &b->channels);
	case OPT_PROBE_MS:
		return parse_uint(arg, 10, 10000, &b->probe_ms);
	case OPT_CPU:
		good = parse_uint(arg, 0, 4095, &fd);
		b->cpu[0] = b->cpu[1] = (int)fd;
		return good;
	case OPT_READY_FD:
		good = parse_uint(arg, 3, 1 << 20, &fd);
		b->ready_fd = (int)fd;
		return good;
	case OPT_COUNT:
		return xi_parse_count(arg, 1, 1000000000000, &b->count);
	default:
		return xi_parse_seconds(arg, 0.01, 3600, &b->seconds);
	}
}

/* Options with a word. */
static bool parse_word(struct xi_bench *b, int o, const char *arg)
{
	static const char *const refs[] = { "out", "in", "inout" };
	int n;

	switch (o) {
	case OPT_ADDRESS:
		b->address = arg;
		return true;
	case OPT_PROBES:
		b->probes = arg;
		return arg[strspn(arg, "LCWETBS")] == 0;
	case OPT_CC:
		b->cc = arg;
		return strlen(arg) < 16;
	case OPT_CPUS:
		return parse_cpus(arg, b->cpu);
	case OPT_WAIT:
		n = one_of(waits, arg);
		if (n >= 0)
			b->wait = (enum xenidc_wait)n;
		return n >= 0;
	case OPT_FILL:
		n = one_of(fills, arg);
		if (n >= 0)
			b->fill = (enum xi_fill)n;
		return n >= 0;
	case OPT_VERIFY:
		n = one_of(verifies, arg);
		if (n >= 0)
			b->verify = (enum xi_verify)n;
		return n >= 0;
	default:
		n = one_of(refs, arg);
		b->out = n == 0 || n == 2;
		b->in = n == 1 || n == 2;
		b->inline_data = false;
		return n >= 0;
	}
}

static bool parse_flag(struct xi_bench *b, int o)
{
	switch (o) {
	case OPT_MAP:
		return b->map = true;
	case OPT_DIGEST:
		return b->digest = true;
	case OPT_JSON:
		return b->json = true;
	case OPT_PEER:
		return b->peer = true;
	case OPT_WATCH:
		return b->watch = true;
	case OPT_ONCE:
		return b->once = true;
	default:
		return false;
	}
}

static void set_defaults(struct xi_bench *b, const char *verb)
{
	static char address[40];

	(void)snprintf(address, sizeof(address), "shm:bench-%d", (int)getpid());
	memset(b, 0, sizeof(*b));
	b->verb = verb;
	b->address = address;
	b->inline_data = true;
	b->wait = XENIDC_WAIT_SPIN;
	b->verify = XI_VERIFY_FULL;
	b->payload = 256;
	b->size = 8;
	b->seconds = 1;
	b->probes = "LCWETBS";
	b->probe_ms = 100;
	b->cc = "reno";
	b->channels = 1;
	b->ready_fd = -1;
	b->depth = 1;
	b->slots = 16;
	xi_default_cpus(b->cpu);
	if (!strcmp(verb, "rate"))
		b->depth = 32;
	if (!strcmp(verb, "bw")) {
		b->depth = 16;
		b->size = 65536;
		b->verify = XI_VERIFY_STAMP;
	}
	if (!strcmp(verb, "idle")) {
		b->wait = XENIDC_WAIT_ADAPTIVE;
		b->seconds = 10;
		b->probes = "L";
	}
	if (!strcmp(verb, "serve")) {
		b->depth = 32;
		b->size = 1u << 20;
		b->out = b->in = true;
		b->inline_data = false;
		b->cpu[0] = b->cpu[1] = -1;
	}
}

/* What follows from the options together. */
static int settle(struct xi_bench *b, bool refs_given)
{
	if (!refs_given && b->size > b->payload) {
		b->inline_data = false;
		b->out = true;
		b->in = strcmp(b->verb, "bw") != 0;
	}
	if (strcmp(b->verb, "serve") && b->inline_data && b->size > b->payload)
		return xi_bench_usage("--size %zu does not fit into --payload %zu", b->size, b->payload);
	if (!b->inline_data && b->slots < b->depth)
		b->slots = b->depth;
	if (!b->address[0])
		return xi_bench_usage("the address is empty");
	return 0;
}

int xi_bench_parse(struct xi_bench *b, int argc, char **argv)
{
	bool refs_given = !strcmp(argv[0], "serve"), good;
	int o;

	set_defaults(b, argv[0]);
	opterr = 0;
	while ((o = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (o == '?')
			return xi_bench_usage("cannot use '%.40s'", argv[optind - 1]);
		refs_given = refs_given || o == OPT_REFS;
		if (o == OPT_MAP || o == OPT_DIGEST || o == OPT_JSON || o == OPT_PEER || o == OPT_WATCH ||
		    o == OPT_ONCE)
			good = parse_flag(b, o);
		else if (o == OPT_ADDRESS || o == OPT_CC || o == OPT_CPUS || o == OPT_FILL || o == OPT_PROBES ||
			 o == OPT_WAIT || o == OPT_VERIFY || o == OPT_REFS)
			good = parse_word(b, o, optarg);
		else
			good = parse_number(b, o, optarg);
		if (!good)
			return xi_bench_usage("the value '%.40s' cannot be used there", optarg);
	}
	if (optind != argc)
		return xi_bench_usage("cannot use '%.40s'", argv[optind]);
	return settle(b, refs_given);
}
