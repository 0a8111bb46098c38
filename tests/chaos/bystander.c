/* SPDX-License-Identifier: MIT */
#include "bystander.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "proc.h"

#define PAUSE_NS 1000000u
/* The longest that a round trip may take while something else dies; much more than what is normal, and much less than
 * any time that the library waits for. */
#define WORST_NS 500000000u

struct bystander {
	xenidc_loop *loop;
	xenidc_listener *listener;
	xenidc_channel *channel;
	struct xenidc_timer pause;
	pid_t pid;
	bool connected, stopping, idle;
	uint64_t sent_at, worst_ns;
	uint64_t round_trips, marked;
};

static void next_round(struct xenidc_timer *timer);

static void answered(xenidc_channel *channel, const struct xenidc_result *result)
{
	struct bystander *b = xenidc_channel_user(channel);
	uint64_t took = check_now() - b->sent_at;

	b->sent_at = 0;
	if (b->stopping)
		return;
	if (result->end != XENIDC_REPLIED)
		check_failed(__FILE__, __LINE__, "a bystander's request ended as %d, reason %s", result->end,
			     xenidc_reason_name(result->reason));
	CHECK_EQ(result->payload_len, sizeof(b->round_trips));
	CHECK_MEM(result->payload, &b->round_trips, sizeof(b->round_trips));
	b->round_trips++;
	if (took > b->worst_ns)
		b->worst_ns = took;
	CHECK_EQ(xenidc_timer_start(b->loop, &b->pause, PAUSE_NS, next_round), 0);
}

static void next_round(struct xenidc_timer *timer)
{
	struct bystander *b = (struct bystander *)(void *)((char *)timer - offsetof(struct bystander, pause));
	struct xenidc_request request = { .payload = &b->round_trips,
					  .payload_len = sizeof(b->round_trips),
					  .done = answered };

	if (b->stopping)
		return;
	b->sent_at = check_now();
	CHECK_EQ(xenidc_submit(b->channel, &request, NULL), 0);
}

static void connected(xenidc_channel *channel, const struct xenidc_limits *limits)
{
	struct bystander *b = xenidc_channel_user(channel);

	(void)limits;
	b->connected = true;
	next_round(&b->pause);
}

static void disconnecting(xenidc_channel *channel, const struct xenidc_error *why)
{
	struct bystander *b = xenidc_channel_user(channel);

	if (!b->stopping)
		check_failed(__FILE__, __LINE__, "a bystander was disconnected: %s", why->text);
}

static void idle(xenidc_channel *channel, const struct xenidc_error *why)
{
	struct bystander *b = xenidc_channel_user(channel);

	(void)why;
	CHECK(b->stopping);
	b->idle = true;
}

static void accepted(xenidc_listener *listener, xenidc_channel *channel)
{
	struct bystander *b = xenidc_listener_user(listener);

	CHECK(!b->channel);
	b->channel = channel;
}

static bool is_connected(void *arg)
{
	return ((struct bystander *)arg)->connected;
}

static bool is_idle(void *arg)
{
	return ((struct bystander *)arg)->idle;
}

struct bystander *bystander_start(xenidc_loop *loop, const char *address)
{
	struct bystander *b = calloc(1, sizeof(*b));
	struct xenidc_listener_options options = { .size = sizeof(options), .accepted = accepted, .user = b };
	struct xenidc_error err;
	const char *argv[] = { NULL, "bystander", NULL, NULL };

	CHECK(b);
	b->loop = loop;
	options.channel = (struct xenidc_channel_options){
		.size = sizeof(options.channel),
		.handlers = { .connected = connected, .disconnecting = disconnecting, .idle = idle },
		.user = b,
	};
	if (xenidc_listener_new(loop, address, &options, &b->listener, &err))
		check_failed(__FILE__, __LINE__, "%s", err.text);
	argv[2] = xenidc_listener_address(b->listener);
	b->pid = proc_start(argv, NULL);
	CHECK(pump_until(loop, is_connected, b, 5000));
	return b;
}

void bystander_mark(struct bystander *b)
{
	b->worst_ns = 0;
	b->marked = b->round_trips;
}

static bool went_on(void *arg)
{
	struct bystander *b = arg;

	return b->round_trips >= b->marked + 2;
}

uint64_t bystander_check(struct bystander *b)
{
	/* Two, since one may have been under way. */
	if (!pump_until(b->loop, went_on, b, 1000))
		check_failed(__FILE__, __LINE__, "a bystander does not go on");
	if (b->worst_ns > WORST_NS * check_factor())
		check_failed(__FILE__, __LINE__, "a bystander's round trip took %u ms",
			     (unsigned)(b->worst_ns / 1000000));
	return b->worst_ns;
}

void bystander_stop(struct bystander *b)
{
	b->stopping = true;
	xenidc_timer_stop(&b->pause);
	CHECK_EQ(xenidc_channel_close(b->channel, 1000000000), 0);
	CHECK(pump_until(b->loop, is_idle, b, 5000));
	xenidc_channel_free(b->channel);
	xenidc_listener_free(b->listener);
	CHECK_EQ(check_wait(b->pid), 0);
	free(b);
}

/* --- The process at the other end */

static void echo(xenidc_channel *channel, xenidc_incoming request)
{
	struct xenidc_reply reply = { 0 };

	CHECK_EQ(xenidc_incoming_payload(channel, request, &reply.payload, &reply.payload_len), 0);
	CHECK_EQ(xenidc_reply(channel, request, &reply), 0);
}

static void over(xenidc_channel *channel, const struct xenidc_error *why)
{
	if (why->reason != XENIDC_REASON_CLOSED)
		check_failed(__FILE__, __LINE__, "the bystander's end: %s", why->text);
	xenidc_loop_stop(xenidc_channel_loop(channel));
}

void bystander_main(int argc, char **argv)
{
	struct xenidc_channel_options options = {
		.size = sizeof(options),
		.handlers = { .request = echo, .idle = over },
	};
	struct xenidc_error err;
	xenidc_channel *channel;
	xenidc_loop *loop;

	if (argc != 3 || strcmp(argv[1], "bystander"))
		return;
	CHECK_EQ(xenidc_loop_new(NULL, &loop), 0);
	CHECK_EQ(xenidc_channel_new(loop, &options, &channel, &err), 0);
	if (xenidc_channel_connect(channel, argv[2], &err))
		check_failed(__FILE__, __LINE__, "%s", err.text);
	CHECK_EQ(xenidc_loop_run(loop), 0);
	xenidc_channel_free(channel);
	xenidc_loop_free(loop);
	exit(0);
}
