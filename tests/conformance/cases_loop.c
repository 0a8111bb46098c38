/* SPDX-License-Identifier: MIT */
/* Loops, threads and processes, as far as they touch channels. */
#define _GNU_SOURCE
#include "harness.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <unistd.h>

static bool readable(xenidc_loop *loop, int ms)
{
	struct pollfd fd = { .fd = xenidc_loop_fd(loop), .events = POLLIN };
	int n = poll(&fd, 1, ms);

	CHECK_OP(n, >=, 0);
	return n > 0;
}

/* Run one end until it has nothing to do any more; what it is about to wait for at most goes to *timeout. */
static void rest(struct end *end, int64_t *timeout)
{
	while (xenidc_loop_arm(end->loop, timeout) == XENIDC_BUSY)
		CHECK_OP(xenidc_loop_step(end->loop, 0), >=, 0);
}

static void never(struct xenidc_timer *timer)
{
	(void)timer;
	CHECK(false);
}

void case_foreign_loop(struct pair *p)
{
	static struct xenidc_timer timer;
	int patience = (int)(1000 * check_factor());
	struct call call;
	int64_t timeout;

	p->server.on.request = serve_echo;
	pair_open(p);
	pair_settle(p);
	for (int i = 0; i < 200; i++) {
		rest(&p->server, &timeout);
		rest(&p->client, &timeout);
		/* Whatever comes after ARMED makes the descriptor readable; the other one is left alone. */
		call_simple(&p->client, &call, "x", 1);
		CHECK_OP(xenidc_loop_step(p->client.loop, 0), >=, 0);
		CHECK(readable(p->server.loop, patience));
		CHECK_OP(xenidc_loop_step(p->server.loop, 0), >, 0);
		while (!call.ends) {
			if (xenidc_loop_arm(p->client.loop, &timeout) == XENIDC_ARMED)
				CHECK(readable(p->client.loop, patience));
			CHECK_OP(xenidc_loop_step(p->client.loop, 0), >=, 0);
		}
		CHECK_END(&call, XENIDC_REPLIED);
	}
	/* With nothing to do the descriptor is quiet, and the next timer is told. */
	rest(&p->server, &timeout);
	rest(&p->client, &timeout);
	CHECK(!readable(p->client.loop, 20));
	CHECK_OP(timeout, >, 0);
	CHECK_EQ(xenidc_timer_start(p->client.loop, &timer, SECOND, never), 0);
	rest(&p->client, &timeout);
	CHECK_OP(timeout, <=, SECOND);
	CHECK_OP(timeout, >, 0);
	xenidc_timer_stop(&timer);
}

/* --- Another thread */
#define NODES 100
struct work {
	struct xenidc_node node;
	struct pair *pair;
	struct call call;
	xenidc_incoming request;
	unsigned number;
};
static struct work submits[NODES], replies[NODES];
static _Atomic unsigned waiting, answered; /* requests that the worker has to answer */
static unsigned next_submit;
static _Atomic bool worker_goes, started; /* a thread that starts may allocate */

static void start_thread(pthread_t *thread, void *(*run)(void *), void *arg)
{
	atomic_store(&started, false);
	CHECK_EQ(pthread_create(thread, NULL, run, arg), 0);
	while (!atomic_load(&started))
		sched_yield();
}

static void submit_here(struct xenidc_node *node)
{
	struct work *w = (struct work *)(void *)node;

	/* In the order in which they were posted. */
	CHECK_EQ(w->number, next_submit++);
	call_simple(&w->pair->client, &w->call, &w->number, sizeof(w->number));
}

static void reply_here(struct xenidc_node *node)
{
	struct work *w = (struct work *)(void *)node;

	answer(&w->pair->server, w->request, (int32_t)w->number);
}

/* The server hands its requests to the worker. */
static void hand_over(struct end *end, xenidc_incoming request)
{
	unsigned n = atomic_load(&waiting);

	replies[n].pair = end->pair;
	replies[n].request = request;
	replies[n].number = n;
	atomic_store(&waiting, n + 1);
}

static void *worker(void *arg)
{
	struct pair *p = arg;

	atomic_store(&started, true);
	while (!atomic_load(&worker_goes))
		sched_yield();
	for (unsigned i = 0; i < NODES; i++) {
		submits[i].pair = p;
		submits[i].number = i;
		xenidc_loop_post(p->client.loop, &submits[i].node, submit_here);
		/* Sometimes both loops sleep by now, sometimes not. */
		if (i % 10 != 0)
			continue;
		while (atomic_load(&answered) < i) {
			unsigned k = atomic_load(&answered);
			if (k < atomic_load(&waiting)) {
				xenidc_loop_post(p->server.loop, &replies[k].node, reply_here);
				atomic_store(&answered, k + 1);
			} else {
				sched_yield();
			}
		}
	}
	while (atomic_load(&answered) < NODES) {
		unsigned k = atomic_load(&answered);
		if (k < atomic_load(&waiting)) {
			xenidc_loop_post(p->server.loop, &replies[k].node, reply_here);
			atomic_store(&answered, k + 1);
		} else {
			sched_yield();
		}
	}
	return NULL;
}

void case_post(struct pair *p)
{
	pthread_t thread;

	p->server.on.request = hand_over;
	pair_loops(p);
	start_thread(&thread, worker, p);
	pair_open(p);
	atomic_store(&worker_goes, true);
	UNTIL(p, p->client.ended[XENIDC_REPLIED] == NODES);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	for (unsigned i = 0; i < NODES; i++) {
		CHECK_EQ(submits[i].call.ends, 1);
		CHECK_EQ(submits[i].call.result.status, (int32_t)i);
	}
}

/* --- Ways of waiting: the server runs in a thread of its own */
static void stop_here(struct xenidc_node *node)
{
	struct work *w = (struct work *)(void *)node;

	xenidc_loop_stop(w->pair->server.loop);
}

static void *run_server(void *arg)
{
	struct pair *p = arg;

	atomic_store(&started, true);
	CHECK_EQ(xenidc_loop_run(p->server.loop), 0);
	return NULL;
}

static void wait_modes(struct pair *p, enum xenidc_wait client, enum xenidc_wait server)
{
	static struct work stop;
	pthread_t thread;
	struct xenidc_result result;
	struct xenidc_request request = { .payload = "ping", .payload_len = 4 };

	CHECK_EQ(xenidc_loop_set_wait(p->client.loop, client), 0);
	CHECK_EQ(xenidc_loop_set_wait(p->server.loop, server), 0);
	alloc_forbid(false);
	start_thread(&thread, run_server, p);
	alloc_forbid(true);
	for (unsigned i = 0; i < 100; i++) {
		CHECK_EQ(xenidc_call(p->client.channel, &request, NULL, 0, NULL, &result), 0);
		CHECK_STR(end_name(result.end), "REPLIED");
	}
	stop.pair = p;
	xenidc_loop_post(p->server.loop, &stop.node, stop_here);
	alloc_forbid(false);
	CHECK_EQ(pthread_join(thread, NULL), 0);
}

void case_wait_modes(struct pair *p)
{
	static const enum xenidc_wait modes[] = { XENIDC_WAIT_BLOCK, XENIDC_WAIT_ADAPTIVE, XENIDC_WAIT_SPIN };

	p->server.on.request = serve_echo;
	pair_open(p);
	CHECK_EQ(xenidc_loop_set_wait(p->client.loop, (enum xenidc_wait)77), -EINVAL);
	for (int i = 0; i < 9; i++)
		wait_modes(p, modes[i / 3], modes[i % 3]);
}

static uint64_t processor_time(void)
{
	struct rusage u;

	CHECK_EQ(getrusage(RUSAGE_THREAD, &u), 0);
	return ((uint64_t)u.ru_utime.tv_sec + (uint64_t)u.ru_stime.tv_sec) * SECOND +
	       ((uint64_t)u.ru_utime.tv_usec + (uint64_t)u.ru_stime.tv_usec) * 1000;
}

void case_idle_sleeps(struct pair *p)
{
	uint64_t before, until;
	unsigned steps = 0;

	pair_open_apart(p);
	pair_pass(p, 20 * MS);
	before = processor_time();
	until = check_now() + 300 * MS;
	for (uint64_t now; (now = check_now()) < until; steps++)
		CHECK_OP(xenidc_loop_step(p->client.loop, (int64_t)(until - now)), >=, 0);
	/* A beat may come, or something that the server was late with. */
	CHECK_OP(steps, <=, 5);
	CHECK_OP(processor_time() - before, <, 50 * MS * check_factor());
}

/* --- fork() */
static void done_never(xenidc_channel *channel, const struct xenidc_result *result)
{
	(void)channel;
	(void)result;
	CHECK(false);
}

static void nothing(struct xenidc_watch *watch, uint32_t events)
{
	(void)watch;
	(void)events;
}

/* Everything but freeing is refused. */
static void in_the_child(struct pair *p, const struct xenidc_ref *ref)
{
	struct xenidc_request request = { .done = done_never };
	struct xenidc_buffer buffer;
	struct xenidc_result result;
	struct xenidc_timer timer = { 0 };
	struct xenidc_watch watch = { 0 };
	xenidc_channel *c = p->client.channel, *more;
	xenidc_incoming held = p->server.held[0];
	xenidc_listener *listener;
	const void *payload;
	uint32_t length;
	void *at;

	CHECK_EQ(xenidc_loop_step(p->client.loop, 0), -ECHILD);
	CHECK_EQ(xenidc_loop_run(p->server.loop), -ECHILD);
	CHECK_EQ(xenidc_loop_set_wait(p->client.loop, XENIDC_WAIT_BLOCK), -ECHILD);
	CHECK_EQ(xenidc_timer_start(p->client.loop, &timer, 1, never), -ECHILD);
	CHECK_EQ(xenidc_watch_start(p->client.loop, &watch, 0, POLLIN, nothing), -ECHILD);
	CHECK_EQ(xenidc_submit(c, &request, NULL), -ECHILD);
	CHECK_EQ(xenidc_call(c, &request, NULL, 0, NULL, &result), -ECHILD);
	CHECK_EQ(xenidc_send(c, "x", 1), -ECHILD);
	CHECK_EQ(xenidc_cancel(c, 1, 0), -ECHILD);
	CHECK_EQ(xenidc_buffer_get(c, XENIDC_OUT, 1, &buffer), -ECHILD);
	CHECK_EQ(xenidc_buffer_put(c, &ref->buffer), -ECHILD);
	CHECK_EQ(xenidc_incoming_payload(p->server.channel, held, &payload, &length), -ECHILD);
	CHECK_EQ(xenidc_view(p->server.channel, held, 0, &at, &length), -ECHILD);
	CHECK_EQ(xenidc_reply(p->server.channel, held, &(struct xenidc_reply){ 0 }), -ECHILD);
	CHECK_EQ(xenidc_channel_close(c, 0), -ECHILD);
	CHECK_EQ(xenidc_channel_connect(c, p->address, NULL), -ECHILD);
	CHECK_EQ(xenidc_channel_new(p->client.loop, &p->client.options, &more, NULL), -ECHILD);
	CHECK_EQ(xenidc_listener_new(p->client.loop, p->address, &p->listening, &listener, NULL), -ECHILD);
}

void case_fork_rule(struct pair *p)
{
	struct xenidc_ref ref;
	struct call call = { .request = { .refs = &ref, .ref_count = 1 } };
	pid_t pid;

	pair_open(p);
	ref = ref_new(&p->client, XENIDC_OUT, 4096);
	call_start(&p->client, &call);
	UNTIL(p, p->server.held_count);
	for (int all_at_once = 0; all_at_once < 2; all_at_once++) {
		pid = check_fork();
		if (pid == 0) {
			in_the_child(p, &ref);
			if (!all_at_once) {
				xenidc_channel_free(p->client.channel);
				xenidc_channel_free(p->server.channel);
				xenidc_listener_free(p->listener);
			}
			xenidc_loop_free(p->client.loop);
			xenidc_loop_free(p->server.loop);
			_exit(0);
		}
		CHECK_EQ(check_wait(pid), 0);
		pair_settle(p);
	}
	/* The parent's channel is as it was, and its listener as well. */
	answer_held(&p->server, 4);
	CALL_END(&call);
	CHECK_END(&call, XENIDC_REPLIED);
	CHECK_EQ(p->client.disconnecting + p->server.disconnecting, 0);
	pair_close(p);
	pair_open(p);
}
