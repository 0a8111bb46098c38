/* SPDX-License-Identifier: MIT */
/* Calls of the system that fail: one after the other, each in a run of its own. */
#include "harness.h"

#include <errno.h>

#include "tests/lib/fault_os.h"

#define CALLS_MAX 3000

static void serve_copy(struct end *end, xenidc_incoming request)
{
	uint32_t from_len, to_len;
	const void *from;
	void *to;

	from = view(end, request, 0, &from_len);
	to = view(end, request, 1, &to_len);
	memcpy(to, from, from_len);
	answer(end, request, 1);
}

/* As long as the channel is not idle: with a fault that may come right after. */
static void check_copy(struct call *call)
{
	if (call->result.end == XENIDC_REPLIED)
		CHECK_FILLED(ref_bytes(&call->request.refs[1]), 8000, 1);
}

/* One request with data both ways; it ends once, however. Then a close. */
static void exchange(struct pair *p)
{
	static struct xenidc_ref refs[2];
	static struct call call;

	call = (struct call){ .request = { .refs = refs, .ref_count = 2 }, .then = check_copy };
	for (int i = 0; i < 2; i++) {
		if (xenidc_buffer_get(p->client.channel, i ? XENIDC_IN : XENIDC_OUT, 8000, &refs[i].buffer))
			return;
		refs[i].length = 8000;
	}
	fill(ref_bytes(&refs[0]), 8000, 1);
	if (call_try(&p->client, &call) == 0)
		UNTIL(p, call.ends);
	if (xenidc_channel_state(p->client.channel) == XENIDC_CONNECTED)
		CHECK_EQ(xenidc_channel_close(p->client.channel, SECOND), 0);
	UNTIL(p, p->client.idle);
}

static void check_told(const struct xenidc_error *err)
{
	CHECK_OP(err->code, <, 0);
	CHECK(err->reason != XENIDC_REASON_NONE);
	CHECK_OP(strlen(err->text), >=, 20);
}

/* The life of a channel with the k-th call failing. False: there are no more calls. */
static bool live_with_fault(struct pair *p, unsigned k)
{
	struct xenidc_error err = { 0 };
	bool fired;
	int e;

	fault_os_set((struct fault){ .countdown = k, .repeat = 1 });
	e = xenidc_channel_new(p->client.loop, &p->client.options, &p->client.channel, &err);
	if (!e)
		e = xenidc_channel_connect(p->client.channel, p->address, &err);
	if (e) {
		check_told(&err);
	} else {
		UNTIL(p, p->client.idle || p->client.connected);
		if (p->client.connected)
			exchange(p);
		else
			check_told(&p->client.idle_why);
	}
	if (p->server.channel)
		UNTIL(p, p->server.idle);
	fired = fault_os_fired() > 0;
	fault_os_clear();
	if (!fired)
		CHECK(p->client.connected && p->client.ended[XENIDC_REPLIED]);
	CHECK_EQ(p->client.open, 0);
	end_free(&p->client);
	end_free(&p->server);
	p->client.idle = p->client.connected = p->client.ended[XENIDC_REPLIED] = 0;
	p->server.idle = p->server.connected = 0;
	return fired;
}

void case_fault_channel(struct pair *p)
{
	unsigned k = 0;

	fault_os_install();
	p->client.options.times.connect_ns = pair_time(p, 300 * MS);
	p->client.options.times.close_ns = pair_time(p, 100 * MS);
	p->server.options.times = p->client.options.times;
	p->server.on.request = serve_copy;
	pair_allow(p);
	pair_listen(p);
	while (live_with_fault(p, k))
		CHECK_OP(++k, <, CALLS_MAX);
	CHECK_OP(k, >, 3);
	/* The listener has outlived it all. */
	pair_open(p);
	fault_os_remove();
}

/* A loop and a listener, with the k-th call failing. */
static bool listen_with_fault(struct pair *p, unsigned k)
{
	struct xenidc_error err = { 0 };
	xenidc_listener *listener = NULL;
	xenidc_loop *loop = NULL;
	bool fired;
	int e;

	fault_os_set((struct fault){ .countdown = k, .repeat = 1 });
	e = xenidc_loop_new(NULL, &loop);
	if (e) {
		CHECK(!loop);
		CHECK_OP(e, <, 0);
	} else {
		e = xenidc_listener_new(loop, p->address, &p->listening, &listener, &err);
		if (e)
			check_told(&err);
		CHECK_EQ(!listener, e < 0);
	}
	fired = fault_os_fired() > 0;
	fault_os_clear();
	CHECK(e == 0 || fired);
	xenidc_listener_free(listener);
	xenidc_loop_free(loop);
	return fired;
}

void case_fault_listen(struct pair *p)
{
	unsigned k = 0;

	fault_os_install();
	while (listen_with_fault(p, k))
		CHECK_OP(++k, <, CALLS_MAX);
	CHECK_OP(k, >, 5);
	/* Nothing of all that stands in the way. */
	pair_open(p);
	fault_os_remove();
}

/* One side has no memory for the channel's reservation: fault the large mappings of that side. */
void case_fault_reserve(struct pair *p)
{
	unsigned failed = 0;

	fault_os_install();
	pair_allow(p);
	pair_listen(p);
	for (unsigned k = 0; k < 8; k++) {
		fault_os_set((struct fault){ .call = "mmap", .countdown = k, .repeat = 1 });
		end_connect(&p->client);
		UNTIL(p, p->client.idle || p->client.connected);
		fault_os_clear();
		if (p->client.idle) {
			failed++;
			check_told(&p->client.idle_why);
			CHECK(p->client.idle_why.reason == XENIDC_REASON_BUDGET ||
			      p->client.idle_why.reason == XENIDC_REASON_RESOURCE);
		}
		pair_close(p);
		end_free(&p->client);
		end_free(&p->server);
		p->client.idle = p->client.connected = p->server.idle = p->server.connected = 0;
	}
	CHECK_OP(failed, >, 0);
	pair_open(p);
	fault_os_remove();
}
