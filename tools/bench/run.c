/* SPDX-License-Identifier: MIT */
/* One measurement: start the serving side, connect, warm up, measure, probe the machine. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <endian.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/bench/bench.h"
#include "tools/bench/pattern.h"
#include "tools/bench/serve.h"
#include "tools/bench/wire.h"
#include "tools/bench/work.h"
#include "tools/common/clock.h"
#include "tools/common/exits.h"
#include "tools/common/text.h"

/* A line to the other core and back: cores that share a cache take 50 to 120 ns, others 300 and more. */
#define FAR_NS 250

static void exec_server(const struct xi_bench *b, int ready_fd)
{
	char size[24], slots[12], depth[12], payload[12], cpu[12], fd[12];
	const char *argv[32] = { "xenidc-bench", "serve", "--once" };
	int n = 3;

	(void)snprintf(size, sizeof(size), "%zu", b->size);
	(void)snprintf(slots, sizeof(slots), "%u", b->slots);
	(void)snprintf(depth, sizeof(depth), "%u", b->depth);
	(void)snprintf(payload, sizeof(payload), "%zu", b->payload);
	(void)snprintf(cpu, sizeof(cpu), "%d", b->cpu[1]);
	(void)snprintf(fd, sizeof(fd), "%d", ready_fd);
	const char *const pairs[][2] = { { "--address", b->address },
					 { "--size", size },
					 { "--slots", slots },
					 { "--depth", depth },
					 { "--payload", payload },
					 { "--wait", xi_wait_name(b->wait) },
					 { "--fill", xi_fill_name(b->fill) },
					 { "--ready-fd", fd } };
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		argv[n++] = pairs[i][0];
		argv[n++] = pairs[i][1];
	}
	if (b->cpu[1] >= 0) {
		argv[n++] = "--cpu";
		argv[n++] = cpu;
	}
	if (!b->inline_data) {
		argv[n++] = "--refs";
		argv[n++] = b->out && b->in ? "inout" : b->out ? "out" : "in";
	}
	if (b->map)
		argv[n++] = "--map";
	if (b->digest)
		argv[n++] = "--digest";
	if (b->watch)
		argv[n++] = "--watch";
	(void)execv("/proc/self/exe", (char *const *)(uintptr_t)argv);
	(void)fprintf(stderr, "xenidc-bench: could not start the serving side: %s\n", strerror(errno));
	_exit(XI_EXIT_RESOURCE);
}

/* Start the serving process; `address` gets where it listens. Its pid, or -1 after saying what is wrong. */
static pid_t start_server(const struct xi_bench *b, char address[XENIDC_ADDRESS_MAX])
{
	pid_t parent = getpid(), pid;
	size_t got = 0;
	ssize_t n = 0;
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) || (pid = fork()) < 0) {
		(void)fprintf(stderr, "xenidc-bench: could not start a process: %s\n", strerror(errno));
		return -1;
	}
	if (!pid) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		(void)fcntl(fds[1], F_SETFD, 0);
		exec_server(b, fds[1]);
	}
	(void)close(fds[1]);
	while (got < XENIDC_ADDRESS_MAX - 1 && (n = read(fds[0], address + got, XENIDC_ADDRESS_MAX - 1 - got)) > 0)
		got += (size_t)n;
	address[got] = 0;
	(void)close(fds[0]);
	if (got)
		return pid;
	/* It has said why on stderr. */
	(void)waitpid(pid, NULL, 0);
	return -1;
}

/* It ends by itself when the last channel is gone; if something is wrong with that, it is killed. */
static void stop_server(pid_t pid)
{
	if (pid <= 0)
		return;
	for (int i = 0; i < 2000; i++) {
		if (waitpid(pid, NULL, WNOHANG))
			return;
		(void)usleep(1000);
	}
	(void)fprintf(stderr, "xenidc-bench: the serving side did not end by itself, killing it\n");
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
}

/* What the serving process has used so far. */
static bool server_usage(struct xi_link *link, struct xi_bench_usage *ret)
{
	struct xi_bench_head head = { .op = XI_BENCH_USAGE };
	struct xenidc_request request = { .payload = &head, .payload_len = sizeof(head), .timeout_ns = 5000000000 };
	struct xenidc_result result = { 0 };

	if (xenidc_call(link->channel, &request, ret, sizeof(*ret), NULL, &result) || result.end != XENIDC_REPLIED ||
	    result.payload_len != sizeof(*ret))
		return false;
	ret->cpu_ns = le64toh(ret->cpu_ns);
	ret->sleeps = le64toh(ret->sleeps);
	return true;
}

/* The present readings of everything whose difference is reported. */
struct readings {
	struct xi_bench_usage client, server;
	double steal_s;
	uint64_t now_ns;
};

static bool take_readings(struct xi_link *link, struct readings *r)
{
	if (!server_usage(link, &r->server))
		return false;
	r->client.cpu_ns = xi_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	r->client.sleeps = xi_sleeps();
	r->steal_s = xi_steal_s();
	r->now_ns = xi_now_ns();
	return true;
}

static void difference(struct xi_outcome *o, const struct readings *a, const struct readings *z, uint64_t end_ns)
{
	o->seconds = (double)(end_ns - a->now_ns) * 1e-9;
	o->cpu_client_s = (double)(z->client.cpu_ns - a->client.cpu_ns) * 1e-9;
	o->cpu_server_s = (double)(z->server.cpu_ns - a->server.cpu_ns) * 1e-9;
	o->sleeps_client_s = (double)(z->client.sleeps - a->client.sleeps) / o->seconds;
	o->sleeps_server_s = (double)(z->server.sleeps - a->server.sleeps) / o->seconds;
	o->steal_s = z->steal_s - a->steal_s;
}

static int work_phases(const struct xi_bench *b, struct xi_link *link, struct xi_work *w, struct xi_outcome *o)
{
	struct readings before, after;
	uint64_t end_ns;
	int e = xi_work_prepare(w, b, link->channel);

	o->first_ns = xi_now_ns();
	if (!e)
		e = xi_work_run(w, 1, 0);
	o->first_ns = xi_now_ns() - o->first_ns;
	/* Warm up: a tenth of it, so that pages, caches, windows and the calibration of the wait are in place. */
	if (!e)
		e = b->count ? xi_work_run(w, b->count / 10 + 1, 0) : xi_work_run(w, 0, b->seconds / 10);
	if (e)
		return e;
	xi_hist_clear(&o->hist);
	xi_hist_clear(&o->rate);
	w->hist = &o->hist;
	w->rate = &o->rate;
	if (!take_readings(link, &before))
		return -ECONNRESET;
	e = b->count ? xi_work_run(w, b->count, 0) : xi_work_run(w, 0, b->seconds);
	end_ns = xi_now_ns();
	o->ops = w->completed;
	o->mismatches = w->mismatches;
	if (!e && !take_readings(link, &after))
		e = -ECONNRESET;
	if (!e)
		difference(o, &before, &after, end_ns);
	return e;
}

static int measure(const struct xi_bench *b, const char *address, struct xi_outcome *o)
{
	static struct xi_link link;
	struct xenidc_channel_options options = { .size = sizeof(options), .map = b->map, .digest = b->digest };
	struct xi_work *w = calloc(1, sizeof(*w));
	int e, fd;

	xi_bench_budget(b, false, &options.budget);
	if (!w || xi_link_open(&link, address, &options, b->wait)) {
		free(w);
		return xi_link_report(&link, "xenidc-bench", address, b->json);
	}
	fd = xi_idle_watch(b, link.loop);
	o->connect_ns = link.connect_ns;
	(void)snprintf(o->transport, sizeof(o->transport), "%s", xenidc_channel_limits(link.channel)->peer.transport);
	if (b->map && !xenidc_channel_limits(link.channel)->map)
		(void)fprintf(stderr, "xenidc-bench: MAP was asked for, but this transport or peer only does COPY\n");
	e = work_phases(b, &link, w, o);
	o->stats.size = sizeof(o->stats);
	xenidc_channel_stats(link.channel, &o->stats);
	if (e) {
		(void)fputs("xenidc-bench: the measurement broke off: ", stderr);
		xi_print_safe(stderr, link.lost        ? link.why.text
				      : w->why.text[0] ? w->why.text
						       : "the serving side does not answer; is it xenidc-bench serve?");
		(void)putc('\n', stderr);
		e = link.lost ? XI_EXIT_LOST : XI_EXIT_PROBLEM;
	}
	xi_link_close(&link);
	if (fd >= 0)
		(void)close(fd);
	free(w);
	return e;
}

/* Open the channels, do nothing, and see how often both processes wake up meanwhile. */
static int measure_idle(const struct xi_bench *b, const char *address, struct xi_outcome *o)
{
	struct xenidc_channel_options options = { .size = sizeof(options) };
	struct xi_link *links = calloc(b->channels, sizeof(*links));
	struct readings before, after;
	uint64_t end;
	unsigned n = 1;
	int e;

	xi_bench_budget(b, false, &options.budget);
	if (!links)
		return XI_EXIT_RESOURCE;
	e = xi_link_open(&links[0], address, &options, b->wait);
	while (!e && n < b->channels)
		e = xi_link_open_on(&links[n++], links[0].loop, address, &options);
	if (e) {
		e = xi_link_report(&links[n - 1], "xenidc-bench", address, b->json);
	} else if (!take_readings(&links[0], &before)) {
		e = XI_EXIT_LOST;
	} else {
		end = xi_now_ns() + (uint64_t)(b->seconds * 1e9);
		for (uint64_t now = xi_now_ns(); now < end; now = xi_now_ns())
			(void)xenidc_loop_step(links[0].loop, (int64_t)(end - now));
		if (!take_readings(&links[0], &after))
			e = XI_EXIT_LOST;
		else
			difference(o, &before, &after, after.now_ns);
		(void)snprintf(o->transport, sizeof(o->transport), "%s",
			       xenidc_channel_limits(links[0].channel)->peer.transport);
	}
	while (n--)
		xi_link_close(&links[n]);
	free(links);
	return e;
}

void xi_take_probes(const struct xi_bench *b, struct xi_probes *p)
{
	const struct {
		char letter;
		double (*take)(const struct xi_bench *b);
		double *to;
	} all[] = {
		{ 'C', xi_probe_copy, &p->c1_ns },
		{ 'W', xi_probe_futex, &p->w_ns },
		{ 'E', xi_probe_eventfd, &p->e_ns },
		{ 'T', xi_probe_tcp_latency, &p->t_ns },
		{ 'B', xi_probe_tcp_bulk, &p->b_bytes_per_s },
		{ 'S', xi_probe_self, &p->s_ns },
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (strchr(b->probes, all[i].letter))
			*all[i].to = all[i].take(b);
}

int xi_bench_run(struct xi_bench *b)
{
	static struct xi_outcome o;
	char address[XENIDC_ADDRESS_MAX];
	bool idle = !strcmp(b->verb, "idle");
	pid_t pid = 0;
	int e;

	if (!xi_pin(b->cpu[0]))
		(void)fprintf(stderr, "xenidc-bench: cannot run on CPU %d, running anywhere\n", b->cpu[0]);
	if (strchr(b->probes, 'L'))
		o.l_before_ns = xi_probe_line(b);
	if (b->fill == XI_FILL_AUTO)
		b->fill = o.l_before_ns > FAR_NS ? XI_FILL_STREAM : XI_FILL_STORE;
	xi_pattern_stream(b->fill == XI_FILL_STREAM);
	(void)snprintf(address, sizeof(address), "%s", b->address);
	if (!b->peer) {
		pid = start_server(b, address);
		if (pid < 0)
			return XI_EXIT_RESOURCE;
	}
	e = idle ? measure_idle(b, address, &o) : measure(b, address, &o);
	stop_server(pid);
	if (e)
		return e;
	if (strchr(b->probes, 'L')) {
		o.l_after_ns = xi_probe_line(b);
		o.probes.l_ns = (o.l_before_ns + o.l_after_ns) / 2;
	}
	xi_take_probes(b, &o.probes);
	xi_report(b, &o);
	return o.mismatches ? XI_EXIT_PROBLEM : XI_EXIT_OK;
}
