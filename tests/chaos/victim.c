/* SPDX-License-Identifier: MIT */
#include "victim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"

struct victim {
	xenidc_loop *loop;
	struct journal *journal;
	const char *address;
	bool cycles;
	struct rng rng;
	struct ends *ends;
};

/* One channel of the victim's: the only one that it dials with, or one of those that it accepted. */
struct victim_channel {
	struct victim *victim;
	struct load load;
	struct xenidc_timer life; /* until the close, or until the next connect */
};

#define CONTAINER_OF_LIFE(timer)                                                                                       \
	((struct victim_channel *)(void *)((char *)(timer)-offsetof(struct victim_channel, life)))

pid_t victim_start(const struct victim_plan *plan)
{
	char seed[16];
	const char *argv[] = { NULL,          "victim", plan->listens ? "listen" : "dial", plan->address,
			       plan->journal, seed,     plan->cycles ? "cycles" : "stays", NULL };

	snprintf(seed, sizeof(seed), "%u", plan->seed);
	return proc_start(argv, plan->failpoint);
}

static void leave(struct xenidc_timer *timer)
{
	struct victim_channel *c = CONTAINER_OF_LIFE(timer);
	int r;

	c->load.submitting = false;
	r = xenidc_channel_close(c->load.channel, rng_below(&c->victim->rng, 2) * 50000000u);
	if (r && r != -EALREADY)
		check_failed(__FILE__, __LINE__, "xenidc_channel_close: %s", strerror(-r));
}

static void up(struct load *load)
{
	struct victim_channel *c = load->user;
	uint64_t life = 10000000u + rng_below(&c->victim->rng, 20000000);

	if (c->victim->cycles)
		CHECK_EQ(xenidc_timer_start(c->victim->loop, &c->life, life, leave), 0);
}

static void dial(struct xenidc_timer *timer)
{
	struct victim_channel *c = CONTAINER_OF_LIFE(timer);
	struct xenidc_error err;

	load_reset(&c->load);
	c->load.submitting = true;
	if (xenidc_channel_connect(c->load.channel, c->victim->address, &err))
		check_failed(__FILE__, __LINE__, "%s", err.text);
}

static void down_dialler(struct load *load)
{
	struct victim_channel *c = load->user;

	CHECK_EQ(xenidc_timer_start(c->victim->loop, &c->life, 1000000, dial), 0);
}

static void down_accepted(struct load *load)
{
	struct victim_channel *c = load->user;

	xenidc_timer_stop(&c->life);
	xenidc_channel_free(load->channel);
	free(c);
}

static struct victim_channel *new_channel(struct victim *v)
{
	struct victim_channel *c = calloc(1, sizeof(*c));

	CHECK(c);
	c->victim = v;
	c->load.journal = v->journal;
	c->load.ends = v->ends;
	c->load.rng.state = rng_next(&v->rng);
	c->load.submitting = true;
	c->load.cancels = true;
	c->load.on_connected = up;
	c->load.user = c;
	return c;
}

static void accepted(xenidc_listener *listener, xenidc_channel *channel)
{
	struct victim_channel *c = new_channel(xenidc_listener_user(listener));

	c->load.channel = channel;
	c->load.on_idle = down_accepted;
	xenidc_channel_set_user(channel, &c->load);
}

static void listen_at(struct victim *v)
{
	struct xenidc_listener_options options = { .size = sizeof(options), .accepted = accepted, .user = v };
	xenidc_listener *listener;
	struct xenidc_error err;

	load_options(&options.channel, NULL);
	if (xenidc_listener_new(v->loop, v->address, &options, &listener, &err))
		check_failed(__FILE__, __LINE__, "%s", err.text);
	snprintf(v->journal->address, sizeof(v->journal->address), "%s", xenidc_listener_address(listener));
	v->journal->listening = 1;
}

void victim_main(int argc, char **argv)
{
	static struct ends ends = { .next = 1 };
	static struct victim v = { .ends = &ends };
	struct xenidc_channel_options options;
	struct victim_channel *c;
	struct xenidc_error err;

	if (argc != 7 || strcmp(argv[1], "victim"))
		return;
	v.address = argv[3];
	v.journal = journal_open(argv[4]);
	v.rng.state = strtoul(argv[5], NULL, 10);
	v.cycles = !strcmp(argv[6], "cycles");
	CHECK_EQ(xenidc_loop_new(NULL, &v.loop), 0);
	if (!strcmp(argv[2], "listen")) {
		listen_at(&v);
	} else {
		c = new_channel(&v);
		c->load.on_idle = down_dialler;
		load_options(&options, &c->load);
		CHECK_EQ(xenidc_channel_new(v.loop, &options, &c->load.channel, &err), 0);
		dial(&c->life);
	}
	CHECK_EQ(xenidc_loop_run(v.loop), 0);
	exit(0);
}
