/* SPDX-License-Identifier: MIT */
/* The other end's process ends without a word. */
#include "harness.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

static bool kernel_tells(const struct pair *p)
{
	return column_has(p->column) & NEED_DEATH;
}

/* At once where a kernel tells, or the end of a stream does; else with the next heartbeat, which gets no answer. */
static void check_time(struct pair *p, uint64_t begin)
{
	bool told = column_has(p->column) & (NEED_DEATH | NEED_STREAM);

	CHECK_OP(pair_now(p) - begin, <, pair_time(p, told ? 2 * SECOND : 6 * SECOND));
}

static void check_death(struct pair *p, uint64_t begin)
{
	check_time(p, begin);
	CHECK_EQ(p->client.disconnecting, 1);
	CHECK(!p->client.why.by_peer);
	CHECK_OP(p->client.why.code, <, 0);
	CHECK_OP(strlen(p->client.why.text), >, 10);
	if (kernel_tells(p))
		CHECK_REASON(p->client.why.reason, XENIDC_REASON_PEER_DIED);
	else
		CHECK(p->client.why.reason == XENIDC_REASON_LOST || p->client.why.reason == XENIDC_REASON_PEER_DIED);
	CHECK_EQ(p->client.idle_why.reason, p->client.why.reason);
}

static void exit_when_told(struct pair *p, char what)
{
	CHECK_EQ(what, 'x');
	if (p->process)
		_exit(0);
	pair_kill(p);
}

void case_peer_exit(struct pair *p)
{
	struct call call;
	uint64_t begin;

	p->told = exit_when_told;
	pair_open_apart(p);
	call_simple(&p->client, &call, "x", 1);
	begin = pair_now(p);
	pair_tell(p, 'x');
	UNTIL(p, p->client.idle);
	if (p->process)
		CHECK_EQ(check_wait(p->process), 0);
	p->killed = true;
	check_death(p, begin);
	CHECK(call.ends == 1 && call.result.end != XENIDC_REPLIED);
}

/* Holds requests, and says so. */
static void hold_and_say(struct end *end, xenidc_incoming request)
{
	end->held[end->held_count++] = request;
	pair_say(end->pair, (char)('0' + end->held_count));
}

/* Two requests dispatched, three not: the server was stopped before, and then is killed. */
static void kill_busy_server(struct pair *p, struct call calls[5])
{
	uint64_t begin;

	p->server.on.request = hold_and_say;
	pair_open_apart(p);
	for (unsigned i = 0; i < 2; i++)
		call_simple(&p->client, &calls[i], &i, sizeof(i));
	UNTIL(p, pair_heard(p, '2'));
	pair_stop(p);
	for (unsigned i = 2; i < 5; i++)
		call_simple(&p->client, &calls[i], &i, sizeof(i));
	for (unsigned i = 0; i < 20; i++)
		pair_step(p);
	begin = pair_now(p);
	pair_kill(p);
	UNTIL(p, p->client.idle);
	check_death(p, begin);
	for (unsigned i = 0; i < 5; i++) {
		CHECK_EQ(calls[i].ends, 1);
		CHECK_EQ(calls[i].result.reason, p->client.why.reason);
	}
}

void case_peer_killed(struct pair *p)
{
	static struct call calls[5];

	kill_busy_server(p, calls);
	for (unsigned i = 0; i < 5; i++)
		CHECK(calls[i].result.end == XENIDC_UNKNOWN || (i >= 2 && calls[i].result.end == XENIDC_NOT_EXECUTED));
}

void case_killed_connecting(struct pair *p)
{
	static struct end second;
	uint64_t begin;

	pair_open_apart(p);
	pair_allow(p);
	pair_stop(p);
	end_init(&second, p, "second", &p->client);
	end_connect(&second);
	for (int i = 0; i < 20; i++)
		pair_step(p);
	CHECK_EQ(second.idle + second.connected, 0);
	begin = pair_now(p);
	pair_kill(p);
	UNTIL(p, second.idle && p->client.idle);
	check_time(p, begin);
	CHECK_EQ(second.connected + second.disconnecting, 0);
	CHECK_OP(second.idle_why.code, <, 0);
	CHECK(second.idle_why.reason != XENIDC_REASON_TIMEOUT);
	end_free(&second);
}

void case_dispatch_known(struct pair *p)
{
	static struct call calls[5];

	kill_busy_server(p, calls);
	for (unsigned i = 0; i < 5; i++)
		CHECK_END(&calls[i], i < 2 ? XENIDC_UNKNOWN : XENIDC_NOT_EXECUTED);
}

/* The server lends as soon as it is connected. */
static void lend(struct end *end)
{
	static struct call call;
	static struct xenidc_ref refs[2];

	refs[0] = ref_new(end, XENIDC_OUT, 60000);
	refs[1] = ref_new(end, XENIDC_IN, 60000);
	fill(ref_bytes(&refs[0]), refs[0].length, 5);
	call = (struct call){ .request = { .payload = "lent", .payload_len = 4, .refs = refs, .ref_count = 2 } };
	call_start(end, &call);
}

static void keep(struct end *end, xenidc_incoming request)
{
	(void)end;
	(void)request;
}

static bool all_zero(const volatile uint8_t *at, uint32_t length)
{
	for (uint32_t i = 0; i < length; i++)
		if (at[i])
			return false;
	return true;
}

static void hold_after_death(struct pair *p, bool map)
{
	const uint8_t *out;
	uint8_t *in;
	uint32_t out_length, in_length;

	p->server.options.map = p->client.options.map = map;
	p->server.on.connected = lend;
	p->client.on.abandoned = keep;
	pair_open_apart(p);
	CHECK_EQ(p->client.limits.map, map);
	UNTIL(p, p->client.held_count);
	out = view(&p->client, p->client.held[0], 0, &out_length);
	in = view(&p->client, p->client.held[0], 1, &in_length);
	CHECK_FILLED(out, out_length, 5);
	pair_kill(p);
	UNTIL(p, p->client.abandoned);
	/* Until the reply both can be touched; with MAP the dead lender's memory has been replaced by zeros. */
	memset(in, 'i', in_length);
	pair_pass(p, 100 * MS);
	if (map)
		CHECK(all_zero(out, out_length));
	else
		CHECK_FILLED(out, out_length, 5);
	memset(in, 'j', in_length);
	CHECK_EQ(p->client.disconnecting, 1);
	CHECK_EQ(p->client.idle, 0);
	answer(&p->client, p->client.held[0], 0);
	p->client.held_count = 0;
	UNTIL(p, p->client.idle);
}

void case_holder_survives(struct pair *p)
{
	hold_after_death(p, false);
}

void case_map_holder_survives(struct pair *p)
{
	hold_after_death(p, true);
}

/* A second server takes the place of the first. */
void case_reconnect_after_death(struct pair *p)
{
	struct call call;
	xenidc_listener *listener;

	pair_allow(p);
	p->server.on.request = serve_echo;
	p->client.options.retry = (struct xenidc_retry){ .enabled = true, .backoff_min_ns = 5 * MS };
	p->client.options.retry.backoff_max_ns = 50 * MS;
	pair_open_apart(p);
	pair_kill(p);
	UNTIL(p, p->client.idle >= 3);
	CHECK_EQ(p->client.disconnecting, 1);
	CHECK_EQ(xenidc_listener_new(p->client.loop, p->address, &p->listening, &listener, NULL), 0);
	UNTIL(p, p->client.connected == 2 && p->server.connected == 1);
	call_simple(&p->client, &call, "x", 1);
	CALL_END(&call);
	CHECK_END(&call, XENIDC_REPLIED);
	pair_close(p);
	xenidc_listener_free(listener);
}
