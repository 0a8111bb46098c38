/* SPDX-License-Identifier: MIT */
/* The simulated world itself: what it promises to the tests that run in it. */
#include <string.h>

#include "sim.h"
#include "tests/lib/check.h"
#include "xenidc-core/engine.h"

struct end {
	struct sim_process *process;
	xenidc_loop *loop;
	xenidc_listener *listener;
	xenidc_channel *channel;
	unsigned connected, idle, requests, messages, replies;
	enum xenidc_reason why;
	xenidc_incoming held;
};
static struct end server, client;

static void on_connected(xenidc_channel *channel, const struct xenidc_limits *limits)
{
	struct end *end = xenidc_channel_user(channel);

	(void)limits;
	end->connected++;
}

static void on_idle(xenidc_channel *channel, const struct xenidc_error *why)
{
	struct end *end = xenidc_channel_user(channel);

	end->idle++;
	end->why = why->reason;
}

static void on_message(xenidc_channel *channel, const void *payload, uint32_t length)
{
	struct end *end = xenidc_channel_user(channel);

	(void)payload;
	(void)length;
	end->messages++;
}

static void on_request(xenidc_channel *channel, xenidc_incoming request)
{
	struct end *end = xenidc_channel_user(channel);

	end->requests++;
	end->held = request;
}

static void on_done(xenidc_channel *channel, const struct xenidc_result *result)
{
	struct end *end = xenidc_channel_user(channel);

	end->replies += result->end == XENIDC_REPLIED;
}

static void on_accepted(xenidc_listener *listener, xenidc_channel *channel)
{
	(void)listener;
	server.channel = channel;
}

static struct xenidc_channel_options options_of(struct end *end)
{
	return (struct xenidc_channel_options){
		.size = sizeof(struct xenidc_channel_options),
		.user = end,
		.handlers = { .connected = on_connected, .idle = on_idle, .message = on_message, .request = on_request }
	};
}

#define UNTIL(condition)                                                                                               \
	do {                                                                                                           \
		while (!(condition))                                                                                   \
			CHECK(sim_step() || sim_advance());                                                            \
	} while (0)

static void make(struct end *end, const char *name)
{
	*end = (struct end){ .process = sim_process_new(name) };
	CHECK_EQ(sim_loop_new(end->process, NULL, &end->loop), 0);
}

static void open_pair(const char *address, const struct sim_options *options)
{
	struct xenidc_listener_options listener = { .size = sizeof(listener), .accepted = on_accepted };
	struct xenidc_channel_options channel = options_of(&client);

	sim_begin(7, options);
	make(&server, "server");
	make(&client, "client");
	listener.channel = options_of(&server);
	sim_as(server.process);
	CHECK_EQ(xenidc_listener_new(server.loop, address, &listener, &server.listener, NULL), 0);
	sim_as(client.process);
	CHECK_EQ(xenidc_channel_new(client.loop, &channel, &client.channel, NULL), 0);
	CHECK_EQ(xenidc_channel_connect(client.channel, address, NULL), 0);
	sim_as(NULL);
	UNTIL(server.connected && client.connected);
}

static void free_end(struct end *end)
{
	if (!end->process->alive)
		return;
	sim_as(end->process);
	xenidc_channel_free(end->channel);
	xenidc_listener_free(end->listener);
	xenidc_loop_free(end->loop);
	sim_as(NULL);
}

static void close_pair(void)
{
	free_end(&server);
	free_end(&client);
	sim_end(); /* and nothing is left */
	for (int i = 0; i < XI_OBJECT_KINDS; i++)
		CHECK_EQ(xi_alive((enum xi_object)i), 0);
}

static void test_random(void)
{
	uint64_t first[8];

	for (int round = 0; round < 3; round++) {
		sim_begin(round == 2 ? 6 : 5, NULL);
		for (int i = 0; i < 8; i++) {
			uint64_t x = sim_random();
			if (round == 0)
				first[i] = x;
			CHECK_EQ(x == first[i], round < 2);
		}
		for (int i = 0; i < 1000; i++) {
			CHECK_OP(sim_below(10), <, 10);
			CHECK(sim_between(5, 7) - 5 <= 2);
		}
		CHECK(!sim_chance(0) && sim_chance(1));
		sim_end();
	}
}

static unsigned fired;
static void count_event(struct sim_event *event)
{
	(void)event;
	fired = fired * 10 + (unsigned)(event->due % 10);
}

static void test_events(void)
{
	struct sim_event events[4] = { 0 };
	uint64_t start;

	sim_begin(1, NULL);
	start = (sim_now() / 10 + 1) * 10;
	sim_event_start(&events[0], start + 3, count_event);
	sim_event_start(&events[1], start + 1, count_event);
	sim_event_start(&events[2], start + 2, count_event);
	sim_event_start(&events[3], start + 2, count_event);
	sim_event_stop(&events[2]);
	sim_event_start(&events[0], start + 4, count_event);
	while (sim_advance())
		sim_step();
	CHECK_EQ(fired, 124);
	CHECK_EQ(sim_now(), start + 4);
	sim_end();
}

static void send_one(void)
{
	CHECK_EQ(xenidc_send(client.channel, "hello", 5), 0);
}

static void test_stall(void)
{
	open_pair("sim-stream:x", NULL);
	uint64_t until = sim_now() + 3000 * SIM_MS;
	sim_stall(client.process, server.process, 3000 * SIM_MS);
	send_one();
	UNTIL(server.messages);
	CHECK_OP(sim_now(), >=, until);
	CHECK_OP(sim_now(), <, until + 100 * SIM_MS);
	close_pair();
}

static void test_bytes(void)
{
	const struct sim_options options = { .chunks = SIM_CHUNKS_BYTE, .pipe_bytes = 1 };

	open_pair("sim-stream:x", &options);
	for (int i = 0; i < 5; i++)
		send_one();
	UNTIL(server.messages == 5);
	close_pair();
}

static void test_delay(void)
{
	const struct sim_options options = { .delay_ns = 100 * SIM_MS };

	open_pair("sim-window:x", &options);
	send_one();
	UNTIL(server.messages);
	close_pair();
}

static void test_loss(void)
{
	open_pair("sim-stream:x", NULL);
	sim_cut(client.process, NULL);
	UNTIL(server.idle && client.idle);
	CHECK_EQ(server.why, XENIDC_REASON_LOST);
	CHECK_EQ(client.why, XENIDC_REASON_LOST);
	close_pair();
}

static void test_pause(void)
{
	open_pair("sim-mapped:x", NULL);
	sim_pause(server.process, true);
	send_one();
	sim_pass(1000 * SIM_MS);
	CHECK_EQ(server.messages, 0);
	sim_pause(server.process, false);
	UNTIL(server.messages);
	close_pair();
}

static void test_death(void)
{
	static const char *const addresses[] = { "sim-mapped:x", "sim-stream:x", "sim-window:x" };

	for (unsigned i = 0; i < 3; i++) {
		open_pair(addresses[i], NULL);
		send_one();
		sim_kill(server.process);
		UNTIL(client.idle);
		CHECK_EQ(client.why, i == 0 ? XENIDC_REASON_PEER_DIED : XENIDC_REASON_LOST);
		close_pair();
	}
}

/* A late read through a window that a reply has closed ends the connection; so the core must never try. */
static void test_late_access(void)
{
	struct xenidc_buffer buffer;
	struct xenidc_ref ref;
	struct xenidc_request request = { .refs = &ref, .ref_count = 1, .done = on_done };
	const struct xenidc_reply reply = { 0 };
	struct xi_conn *conn;

	open_pair("sim-window:x", NULL);
	CHECK_EQ(xenidc_buffer_get(client.channel, XENIDC_OUT, 100, &buffer), 0);
	ref = (struct xenidc_ref){ buffer, 0, 100 };
	CHECK_EQ(xenidc_submit(client.channel, &request, NULL), 0);
	UNTIL(server.requests);
	conn = server.channel->conn;
	CHECK_EQ(conn->t->fetch(conn, buffer.slot, 0, 100), XI_PENDING); /* still open: not late */
	conn->t->flush(conn);
	CHECK_EQ(xenidc_reply(server.channel, server.held, &reply), 0);
	UNTIL(client.replies);
	CHECK_EQ(server.idle + client.idle, 0);
	CHECK_EQ(conn->t->fetch(conn, buffer.slot, 0, 100), XI_PENDING);
	conn->t->flush(conn);
	UNTIL(server.idle && client.idle);
	CHECK_EQ(server.why, XENIDC_REASON_LOST);
	close_pair();
}

/* --- Coroutines */
static void body(struct sim_process *process, void *arg)
{
	unsigned *turns = arg;

	(void)process;
	for (int i = 0; i < 10; i++) {
		*turns = *turns * 2 + process->index;
		sim_yield();
	}
}

static void test_coroutines(void)
{
	unsigned turns[2] = { 0 };
	uint64_t hashes[2];

	for (int i = 0; i < 2; i++) {
		sim_begin(9, NULL);
		struct sim_process *a = sim_process_new("a"), *b = sim_process_new("b");
		sim_start(a, body, &turns[i]);
		sim_start(b, body, &turns[i]);
		while (sim_run())
			;
		CHECK(sim_finished(a) && sim_finished(b));
		hashes[i] = sim_hash();
		sim_end();
	}
	CHECK_EQ(turns[0], turns[1]);
	CHECK_EQ(hashes[0], hashes[1]);
	CHECK_OP(turns[0], !=, 0x3ff); /* not one after the other */
}

CHECK_MAIN(TEST(test_random), TEST(test_events), TEST(test_stall), TEST(test_bytes), TEST(test_delay), TEST(test_loss),
	   TEST(test_pause), TEST(test_death), TEST(test_late_access), TEST(test_coroutines))
