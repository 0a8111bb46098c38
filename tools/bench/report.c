/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <string.h>

#include "tools/bench/bench.h"
#include "tools/common/clock.h"
#include "tools/common/json.h"
#include "tools/common/text.h"

static double quantile_ns(const struct xi_outcome *o, double share)
{
	return xi_hist_quantile(&o->hist, share) * xi_ns_per_tick;
}

static double ops_per_s(const struct xi_outcome *o)
{
	return o->seconds > 0 ? (double)o->ops / o->seconds : 0;
}

/* Data of one operation that reached their receiver, both directions together. */
static double bytes_per_op(const struct xi_bench *b)
{
	unsigned ways = b->inline_data ? 2 : (unsigned)b->out + (unsigned)b->in;

	return (double)b->size * ways;
}

static double bytes_per_s(const struct xi_bench *b, const struct xi_outcome *o)
{
	return ops_per_s(o) * bytes_per_op(b);
}

static double cpu_s_per_mop(const struct xi_outcome *o)
{
	return o->ops ? (o->cpu_client_s + o->cpu_server_s) / (double)o->ops * 1e6 : 0;
}

static const char *refs_name(const struct xi_bench *b)
{
	return b->inline_data ? "none" : b->out && b->in ? "inout" : b->out ? "out" : "in";
}

static void json_probe(struct xi_json *j, const char *key, double value)
{
	/* Not measured, not zero. */
	if (value > 0)
		xi_json_real(j, key, value);
	else
		xi_json_text(j, key, NULL);
}

static void json_probes(struct xi_json *j, const struct xi_probes *p)
{
	json_probe(j, "L_ns", p->l_ns);
	json_probe(j, "C1_ns", p->c1_ns);
	json_probe(j, "W_ns", p->w_ns);
	json_probe(j, "E_ns", p->e_ns);
	json_probe(j, "T_ns", p->t_ns);
	json_probe(j, "S_ns", p->s_ns);
	json_probe(j, "B_bytes_per_s", p->b_bytes_per_s);
}

static void json_setting(struct xi_json *j, const struct xi_bench *b)
{
	xi_json_text(j, "verb", b->verb);
	xi_json_text(j, "version", xenidc_version());
	xi_json_text(j, "address", b->address);
	xi_json_uint(j, "size", b->size);
	xi_json_text(j, "wait", xi_wait_name(b->wait));
	xi_json_text(j, "refs", refs_name(b));
	xi_json_text(j, "verify", xi_verify_name(b->verify));
	xi_json_text(j, "fill", xi_fill_name(b->fill));
	xi_json_bool(j, "map", b->map);
	xi_json_bool(j, "digest", b->digest);
	xi_json_bool(j, "watch", b->watch);
	xi_json_uint(j, "slots", b->inline_data ? 0 : b->slots);
	xi_json_uint(j, "depth", b->depth);
	xi_json_text(j, "cc", b->cc);
	xi_json_open_list(j, "cpus");
	xi_json_int(j, NULL, b->cpu[0]);
	xi_json_int(j, NULL, b->cpu[1]);
	xi_json_close(j);
}

static void json_times(struct xi_json *j, const struct xi_bench *b, const struct xi_outcome *o)
{
	xi_json_uint(j, "connect_ns", o->connect_ns);
	xi_json_uint(j, "first_ns", o->first_ns);
	xi_json_uint(j, "ops", o->ops);
	xi_json_uint(j, "mismatches", o->mismatches);
	xi_json_real(j, "min_ns", o->hist.count ? (double)o->hist.min * xi_ns_per_tick : 0);
	xi_json_real(j, "p50_ns", quantile_ns(o, 0.5));
	xi_json_real(j, "p99_ns", quantile_ns(o, 0.99));
	xi_json_real(j, "p999_ns", quantile_ns(o, 0.999));
	xi_json_real(j, "max_ns", (double)o->hist.max * xi_ns_per_tick);
	xi_json_real(j, "ops_per_s", ops_per_s(o));
	xi_json_real(j, "bytes_per_s", bytes_per_s(b, o));
	xi_json_real(j, "ops_per_s_p50", xi_hist_quantile(&o->rate, 0.5));
	xi_json_real(j, "bytes_per_s_p50", xi_hist_quantile(&o->rate, 0.5) * bytes_per_op(b));
	xi_json_real(j, "cpu_s_per_mop", cpu_s_per_mop(o));
	xi_json_uint(j, "wakeups_sent", o->stats.wakeups_sent);
	xi_json_uint(j, "wakeups_suppressed", o->stats.wakeups_suppressed);
	xi_json_uint(j, "copies", o->stats.copies);
}

static void report_json(const struct xi_bench *b, const struct xi_outcome *o)
{
	struct xi_json j = { .to = stdout };
	bool idle = !strcmp(b->verb, "idle");

	xi_json_open(&j, NULL);
	json_setting(&j, b);
	xi_json_text(&j, "transport", o->transport);
	xi_json_real(&j, "seconds", o->seconds);
	xi_json_real(&j, "steal_s", o->steal_s);
	xi_json_real(&j, "cpu_client_s", o->cpu_client_s);
	xi_json_real(&j, "cpu_server_s", o->cpu_server_s);
	xi_json_real(&j, "sleeps_client_per_s", o->sleeps_client_s);
	xi_json_real(&j, "sleeps_server_per_s", o->sleeps_server_s);
	if (idle)
		xi_json_uint(&j, "channels", b->channels);
	else
		json_times(&j, b, o);
	if (b->probes[0]) {
		xi_json_open(&j, "probes");
		xi_json_real(&j, "L_before_ns", o->l_before_ns);
		xi_json_real(&j, "L_after_ns", o->l_after_ns);
		json_probes(&j, &o->probes);
		xi_json_close(&j);
	}
	xi_json_close(&j);
}

static void print_probe(const char *name, double ns)
{
	char time[XI_HUMAN];

	if (ns > 0)
		(void)printf("  %s %s", name, xi_human_ns(time, ns));
}

static void print_probes(const struct xi_probes *p)
{
	char rate[XI_HUMAN];

	(void)printf("  limits     ");
	print_probe("L", p->l_ns);
	print_probe("C1", p->c1_ns);
	print_probe("W", p->w_ns);
	print_probe("E", p->e_ns);
	print_probe("T", p->t_ns);
	print_probe("S", p->s_ns);
	if (p->b_bytes_per_s > 0)
		(void)printf("  B %s", xi_human_bandwidth(rate, p->b_bytes_per_s));
	(void)putchar('\n');
}

static void print_place(const struct xi_bench *b)
{
	if (b->cpu[0] < 0 || b->cpu[1] < 0)
		(void)printf("not pinned");
	else if (b->cpu[0] == b->cpu[1])
		(void)printf("both on core %d", b->cpu[0]);
	else
		(void)printf("cores %d and %d", b->cpu[0], b->cpu[1]);
}

static void print_setting(const struct xi_bench *b, const struct xi_outcome *o)
{
	char size[XI_HUMAN];

	(void)printf("%s ", b->verb);
	xi_print_safe(stdout, b->address);
	(void)printf(" over %s, ", o->transport);
	if (!strcmp(b->verb, "idle"))
		(void)printf("%u channel%s", b->channels, b->channels == 1 ? "" : "s");
	else if (b->inline_data)
		(void)printf("%s inline in request and reply", xi_human_bytes(size, (double)b->size));
	else
		(void)printf("%s %s in %u buffers, verified: %s", xi_human_bytes(size, (double)b->size), refs_name(b),
			     b->slots, xi_verify_name(b->verify));
	(void)printf(", %u in flight, wait %s%s%s%s, ", b->depth, xi_wait_name(b->wait), b->map ? ", MAP" : "",
		     b->digest ? ", digest" : "", b->watch ? ", a descriptor is watched" : "");
	print_place(b);
	(void)putchar('\n');
}

static void print_times(const struct xi_bench *b, const struct xi_outcome *o)
{
	char t[5][XI_HUMAN];

	(void)printf("  round trip   min %s  p50 %s  p99 %s  p99.9 %s  max %s  (%llu in %.2f s)\n",
		     xi_human_ns(t[0], (double)o->hist.min * xi_ns_per_tick), xi_human_ns(t[1], quantile_ns(o, 0.5)),
		     xi_human_ns(t[2], quantile_ns(o, 0.99)), xi_human_ns(t[3], quantile_ns(o, 0.999)),
		     xi_human_ns(t[4], (double)o->hist.max * xi_ns_per_tick), (unsigned long long)o->ops, o->seconds);
	(void)printf("  throughput   %s, %s; CPU %.3g s per million, both sides\n", xi_human_rate(t[0], ops_per_s(o)),
		     xi_human_bandwidth(t[1], bytes_per_s(b, o)), cpu_s_per_mop(o));
	(void)printf("  start        connected in %s, first request %s\n", xi_human_ns(t[0], (double)o->connect_ns),
		     xi_human_ns(t[1], (double)o->first_ns));
	if (o->mismatches)
		(void)printf("  WRONG DATA   in %llu of them\n", (unsigned long long)o->mismatches);
}

void xi_report(const struct xi_bench *b, const struct xi_outcome *o)
{
	char t[2][XI_HUMAN];

	if (b->json) {
		report_json(b, o);
		return;
	}
	print_setting(b, o);
	if (strcmp(b->verb, "idle"))
		print_times(b, o);
	(void)printf("  sleeps       client %.3g /s, serving side %.3g /s; CPU client %.2f %%, serving side %.2f %%\n",
		     o->sleeps_client_s, o->sleeps_server_s, o->cpu_client_s / o->seconds * 100,
		     o->cpu_server_s / o->seconds * 100);
	if (!b->probes[0])
		return;
	print_probes(&o->probes);
	(void)printf("  trust        L before %s, after %s; %.2f s stolen by the hypervisor\n",
		     xi_human_ns(t[0], o->l_before_ns), xi_human_ns(t[1], o->l_after_ns), o->steal_s);
}

void xi_report_probes(const struct xi_bench *b, const struct xi_probes *p)
{
	struct xi_json j = { .to = stdout };

	if (!b->json) {
		print_probes(p);
		return;
	}
	xi_json_open(&j, NULL);
	xi_json_uint(&j, "size", b->size);
	xi_json_text(&j, "cc", b->cc);
	json_probes(&j, p);
	xi_json_close(&j);
}
