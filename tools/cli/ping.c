/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xenidc/xenidc.h>

#include "tools/cli/cli.h"
#include "tools/common/clock.h"
#include "tools/common/hist.h"
#include "tools/common/json.h"
#include "tools/common/link.h"
#include "tools/common/text.h"

/*
 * What every request starts with, in clear text, so that a service that did not expect it can tell from its log what
 * it was. Of the rest each byte is the low byte of its offset plus the request's number.
 */
static const char mark[8] = { 'X', 'I', 'D', 'C', 'P', 'I', 'N', 'G' };

#define SIZE_MAX_PING 16384

struct ping {
	const char *address;
	bool json;
	uint64_t count, size;
	double interval_s, timeout_s;
	uint64_t sent, replied, echoed, refused, lost;
	struct xi_hist rtt;
};

static int parse_option(struct ping *p, int o, char **argv)
{
	switch (o) {
	case 'c':
		if (!xi_parse_count(optarg, 0, 1000000000, &p->count))
			return xi_usage("ping", "--count '%.40s' is not a number from 0 to 1G", optarg);
		return 0;
	case 's':
		if (!xi_parse_size(optarg, 8, SIZE_MAX_PING, &p->size))
			return xi_usage("ping", "--size '%.40s' is not a size from 8 to 16K", optarg);
		return 0;
	case 'i':
		if (!xi_parse_seconds(optarg, 0, 3600, &p->interval_s))
			return xi_usage("ping", "--interval '%.40s' is not a time from 0 to 3600 seconds", optarg);
		return 0;
	case 't':
		if (!xi_parse_seconds(optarg, 0.001, 3600, &p->timeout_s))
			return xi_usage("ping", "--timeout '%.40s' is not a time from 1ms to 3600 seconds", optarg);
		return 0;
	case 'j':
		p->json = true;
		return 0;
	default:
		return xi_usage("ping", "cannot use '%.40s'", argv[optind - 1]);
	}
}

static int parse(struct ping *p, int argc, char **argv)
{
	static const struct option options[] = {
		{ "count", required_argument, NULL, 'c' },    { "size", required_argument, NULL, 's' },
		{ "interval", required_argument, NULL, 'i' }, { "timeout", required_argument, NULL, 't' },
		{ "json", no_argument, NULL, 'j' },           { NULL, 0, NULL, 0 },
	};
	int o;

	p->count = 5;
	p->size = 8;
	p->interval_s = 0.1;
	p->timeout_s = 10;
	opterr = 0;
	while ((o = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		int e = parse_option(p, o, argv);
		if (e)
			return e;
	}
	if (optind + 1 != argc)
		return xi_usage("ping", optind == argc ? "an address is missing" : "one address is enough");
	p->address = argv[optind];
	return 0;
}

static void show_classes(const char *name, const struct xenidc_slot_class *c)
{
	char size[XI_HUMAN];

	(void)printf("    %-22s", name);
	if (!c[0].count)
		(void)printf("none");
	for (int i = 0; i < XENIDC_CLASSES_MAX && c[i].count; i++)
		(void)printf("%s%u of %s", i ? ", " : "", c[i].count, xi_human_bytes(size, c[i].size));
	(void)putchar('\n');
}

static void show_peer(const struct ping *p, const struct xi_link *link)
{
	const struct xenidc_limits *l = xenidc_channel_limits(link->channel);
	const struct xenidc_budget *b = &l->budget;
	struct xenidc_stats stats = { .size = sizeof(stats) };
	char time[XI_HUMAN], size[XI_HUMAN];

	xenidc_channel_stats(link->channel, &stats);
	(void)printf("connected to ");
	xi_print_safe(stdout, p->address);
	(void)printf(" in %s\n    peer                  ", xi_human_ns(time, (double)link->connect_ns));
	xi_print_safe(stdout, l->peer.address);
	(void)printf(" over ");
	xi_print_safe(stdout, l->peer.transport);
	if (l->peer.has_uid)
		(void)printf(", uid %u, gid %u, pid %d", l->peer.uid, l->peer.gid, l->peer.pid);
	if (l->peer.has_domid)
		(void)printf(", domain %u", l->peer.domid);
	(void)printf("\n    protocol              %u.%u; this is xenidc %s\n", l->peer.version_major,
		     l->peer.version_minor, xenidc_version());
	(void)printf("    requests              %u out, %u in; messages %u out, %u in\n", b->requests_out,
		     b->requests_in, b->messages_out, b->messages_in);
	(void)printf("    inline payload        %s; references %u a request\n", xi_human_bytes(size, b->payload),
		     b->refs);
	show_classes("buffers to lend, OUT", b->out);
	show_classes("buffers to lend, IN", b->in);
	(void)printf("    reserved              %s; MAP %s, digest %s\n",
		     xi_human_bytes(size, (double)stats.reserved_bytes), l->map ? "yes" : "no",
		     l->digest ? "yes" : "no");
}

static void json_classes(struct xi_json *j, const char *name, const struct xenidc_slot_class *c)
{
	xi_json_open_list(j, name);
	for (int i = 0; i < XENIDC_CLASSES_MAX && c[i].count; i++) {
		xi_json_open(j, NULL);
		xi_json_uint(j, "size", c[i].size);
		xi_json_uint(j, "count", c[i].count);
		xi_json_close(j);
	}
	xi_json_close(j);
}

static void json_peer(struct xi_json *j, const struct xenidc_peer *peer)
{
	xi_json_open(j, "peer");
	xi_json_text(j, "transport", peer->transport);
	xi_json_text(j, "address", peer->address);
	if (peer->has_uid) {
		xi_json_uint(j, "uid", peer->uid);
		xi_json_uint(j, "gid", peer->gid);
		xi_json_int(j, "pid", peer->pid);
	}
	if (peer->has_domid)
		xi_json_uint(j, "domid", peer->domid);
	xi_json_uint(j, "version_major", peer->version_major);
	xi_json_uint(j, "version_minor", peer->version_minor);
	xi_json_close(j);
}

static void json_limits(struct xi_json *j, const struct xenidc_limits *l)
{
	xi_json_open(j, "limits");
	xi_json_uint(j, "requests_out", l->budget.requests_out);
	xi_json_uint(j, "requests_in", l->budget.requests_in);
	xi_json_uint(j, "messages_out", l->budget.messages_out);
	xi_json_uint(j, "messages_in", l->budget.messages_in);
	xi_json_uint(j, "payload", l->budget.payload);
	xi_json_uint(j, "refs", l->budget.refs);
	json_classes(j, "out", l->budget.out);
	json_classes(j, "in", l->budget.in);
	xi_json_bool(j, "map", l->map);
	xi_json_bool(j, "digest", l->digest);
	xi_json_close(j);
}

static void json_result(struct ping *p, const struct xi_link *link, const struct xenidc_limits *limits)
{
	struct xi_json j = { .to = stdout };

	xi_json_open(&j, NULL);
	xi_json_text(&j, "address", p->address);
	xi_json_bool(&j, "connected", true);
	xi_json_text(&j, "version", xenidc_version());
	xi_json_uint(&j, "connect_ns", link->connect_ns);
	json_peer(&j, &limits->peer);
	json_limits(&j, limits);
	xi_json_open(&j, "requests");
	xi_json_uint(&j, "size", p->size);
	xi_json_uint(&j, "sent", p->sent);
	xi_json_uint(&j, "replied", p->replied);
	xi_json_uint(&j, "echoed", p->echoed);
	xi_json_uint(&j, "refused", p->refused);
	xi_json_uint(&j, "lost", p->lost);
	xi_json_close(&j);
	if (p->rtt.count) {
		xi_json_open(&j, "rtt_ns");
		xi_json_uint(&j, "min", p->rtt.min);
		xi_json_real(&j, "p50", xi_hist_quantile(&p->rtt, 0.5));
		xi_json_real(&j, "p99", xi_hist_quantile(&p->rtt, 0.99));
		xi_json_uint(&j, "max", p->rtt.max);
		xi_json_close(&j);
	}
	if (link->lost) {
		xi_json_open(&j, "error");
		xi_json_text(&j, "reason", xenidc_reason_name(link->why.reason));
		xi_json_text(&j, "text", link->why.text);
		xi_json_close(&j);
	}
	xi_json_close(&j);
}

/* One request; prints its line. The channel may end meanwhile. */
static void ping_once(struct ping *p, struct xi_link *link)
{
	static uint8_t out[SIZE_MAX_PING], in[SIZE_MAX_PING];
	struct xenidc_request request = { .payload = out, .payload_len = (uint32_t)p->size };
	struct xenidc_result result = { 0 };
	char time[XI_HUMAN];
	uint64_t start, took;
	int e;

	for (size_t i = 0; i < p->size; i++)
		out[i] = (uint8_t)(i + p->sent);
	memcpy(out, mark, sizeof(mark));
	request.timeout_ns = (uint64_t)(p->timeout_s * 1e9);
	p->sent++;
	start = xi_now_ns();
	e = xenidc_call(link->channel, &request, in, sizeof(in), NULL, &result);
	took = xi_now_ns() - start;
	(void)xi_human_ns(time, (double)took);
	if (e || result.end == XENIDC_UNKNOWN || link->idle || link->lost) {
		p->lost++;
		if (!p->json)
			(void)printf("%llu: no answer: %s\n", (unsigned long long)p->sent,
				     e ? strerror(-e) : xenidc_reason_text(result.reason));
		return;
	}
	/* A refusal has travelled there and back as well. */
	xi_hist_add(&p->rtt, took);
	if (result.end == XENIDC_NOT_EXECUTED) {
		p->refused++;
		if (!p->json)
			(void)printf("%llu: the service refused the request after %s\n", (unsigned long long)p->sent,
				     time);
		return;
	}
	p->replied++;
	if (result.payload_len == p->size && !memcmp(in, out, p->size))
		p->echoed++;
	if (!p->json)
		(void)printf("%llu: %u bytes, status %d, in %s\n", (unsigned long long)p->sent, result.payload_len,
			     result.status, time);
}

static void wait_interval(const struct ping *p, struct xi_link *link)
{
	uint64_t end = xi_now_ns() + (uint64_t)(p->interval_s * 1e9);

	for (uint64_t now = xi_now_ns(); now < end && link->connected; now = xi_now_ns())
		(void)xenidc_loop_step(link->loop, (int64_t)(end - now));
}

static void show_summary(const struct ping *p)
{
	char t[4][XI_HUMAN];

	if (!p->sent)
		return;
	(void)printf("%llu sent, %llu answered, %llu refused, %llu without an answer", (unsigned long long)p->sent,
		     (unsigned long long)p->replied, (unsigned long long)p->refused, (unsigned long long)p->lost);
	if (p->rtt.count)
		(void)printf("; round trip min %s, p50 %s, p99 %s, max %s", xi_human_ns(t[0], (double)p->rtt.min),
			     xi_human_ns(t[1], xi_hist_quantile(&p->rtt, 0.5)),
			     xi_human_ns(t[2], xi_hist_quantile(&p->rtt, 0.99)), xi_human_ns(t[3], (double)p->rtt.max));
	(void)putchar('\n');
}

static int run(int argc, char **argv)
{
	static struct ping p;
	static struct xi_link link;
	struct xenidc_channel_options options = { .size = sizeof(options) };
	struct xenidc_limits limits;
	int e = parse(&p, argc, argv);

	if (e)
		return e;
	xi_hist_clear(&p.rtt);
	options.times.connect_ns = (uint64_t)(p.timeout_s * 1e9);
	options.budget.payload = p.size > 256 ? (uint32_t)p.size : 256;
	if (xi_link_open(&link, p.address, &options, XENIDC_WAIT_ADAPTIVE))
		return xi_link_report(&link, "xenidc ping", p.address, p.json);
	limits = *xenidc_channel_limits(link.channel);
	if (!p.json)
		show_peer(&p, &link);
	if (p.size > limits.budget.payload) {
		xi_link_close(&link);
		return xi_usage("ping", "the peer takes payloads of up to %u bytes, --size asks for more",
				limits.budget.payload);
	}
	for (uint64_t i = 0; i < p.count && link.connected; i++) {
		if (i)
			wait_interval(&p, &link);
		if (link.connected)
			ping_once(&p, &link);
	}
	if (p.json)
		json_result(&p, &link, &limits);
	else
		show_summary(&p);
	if (link.lost)
		e = p.json ? XI_EXIT_LOST : xi_link_report(&link, "xenidc ping", p.address, false);
	else
		e = p.lost ? XI_EXIT_PROBLEM : XI_EXIT_OK;
	xi_link_close(&link);
	return e;
}

const struct xi_verb xi_verb_ping = {
	.name = "ping",
	.arguments = "ADDRESS [--count N] [--size N] [--interval SECONDS] [--timeout SECONDS] [--json]",
	.summary = "Connect to any xenidc listener, say who and what is there, and time round trips",
	.help = "Works against every listener: it connects, and reports how long that took, who the peer is, which\n"
		"protocol it speaks, and what was negotiated (both sides' budgets, the smaller of each).\n"
		"\n"
		"Then it sends requests and times the way there and back. They start with the 8 bytes XIDCPING, carry\n"
		"no buffers, and ask for nothing; a service that knows no such request says so, and a refusal is a\n"
		"round trip as well. `xenidc echo` answers them by the same bytes. With --count 0 nothing is sent.\n"
		"\n"
		"  --count N            requests to send (5)\n"
		"  --size N             bytes of payload, 8 to 16K (8)\n"
		"  --interval SECONDS   pause between two requests (0.1)\n"
		"  --timeout SECONDS    for the connect, and for each request (10)\n"
		"  --json               one JSON object instead of text\n"
		"\n"
		"Exit code 0: connected, and every request was answered or refused. 1: connected, but a request got "
		"no\n"
		"answer. 3: nobody answers there. 4: refused. 6: the connection was lost. (`xenidc help exits`)\n",
	.run = run,
};
