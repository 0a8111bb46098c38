/* SPDX-License-Identifier: MIT */
/* Processes of the general run: each has a loop, some channels, and a life. */
#include <stdio.h>
#include <string.h>

#include "model.h"

/* How late things may be: sleepers get the processor late, and lose it often. */
#define SLACK (40 * SIM_MS)
#define NAMES "run"

struct side sides[SIDES];

static const char *scheme(void)
{
	static const char *const schemes[PERSONALITIES] = { "sim-mapped", "sim-stream", "sim-window" };

	return schemes[config.personality];
}

void side_address(char *to, size_t size)
{
	snprintf(to, size, "%s:%s", scheme(), NAMES);
}

uint64_t side_slack(void)
{
	return SLACK;
}

void sides_begin(void)
{
	static const char *const names[SIDES] = { "server", "client", "second" };

	memset(sides, 0, sizeof(sides));
	for (unsigned i = 0; i < SIDES; i++) {
		sides[i].index = i;
		sides[i].name = names[i];
		sides[i].server = i == 0;
	}
}

struct chan *side_place(struct side *s)
{
	for (unsigned i = 0; i < CHANNELS; i++)
		if (!s->chans[i].channel)
			return &s->chans[i];
	return NULL;
}

struct chan *chan_of(xenidc_channel *channel)
{
	struct chan *c = xenidc_channel_user(channel);

	MUST(c->channel == channel, "a handler of a channel that was freed is called");
	return c;
}

/* Its channel is gone, or its process: nothing more is heard of it. */
void chan_reset(struct chan *c)
{
	struct side *s = c->side;

	for (uint32_t i = 0; i < c->open_count; i++)
		shadow_item(c->open[i])->orphaned = true;
	if (c->serial)
		shadow_gone(c);
	*c = (struct chan){ .side = s };
}

/* --- The listener */
static int accept_hook(xenidc_listener *listener, const struct xenidc_peer *peer, struct xenidc_accept *accept)
{
	struct side *s = xenidc_listener_user(listener);

	MUST(peer->size == sizeof(*peer) && peer->transport[0], "the accept hook is not told who is there");
	if (!side_place(s) || (config.faults && sim_chance(20)))
		return -1;
	actor_options(s, &accept->channel);
	return 0;
}

static void accepted(xenidc_listener *listener, xenidc_channel *channel)
{
	struct side *s = xenidc_listener_user(listener);
	struct chan *c = side_place(s);

	MUST(c, "a channel was accepted that the hook had refused");
	*c = (struct chan){ .side = s, .channel = channel, .accepted = true, .connecting = true };
	c->connect_by = sim_now() + config.times.connect_ns + SLACK;
	xenidc_channel_set_user(channel, c);
	histogram_count(c, EV_ACCEPT, 1);
}

static void listen_now(struct side *s)
{
	struct xenidc_listener_options o = {
		.size = sizeof(o), .accept = accept_hook, .accepted = accepted, .user = s
	};
	struct xenidc_error err = { 0 };
	char address[64];

	o.channel.size = sizeof(o.channel);
	actor_options(s, &o.channel);
	side_address(address, sizeof(address));
	int r = xenidc_listener_new(s->loop, address, &o, &s->listener, &err);
	MUST(r == 0, "cannot listen: %s", err.text);
}

/* --- Life */
static void poked(struct xenidc_node *node)
{
	struct side *s = XI_CONTAINER(node, struct side, node);
	unsigned todo = s->todo;

	s->node_posted = false;
	s->todo = 0;
	actor_turn(s, todo);
}

void side_poke(struct side *s, unsigned actions)
{
	if (!s->loop || !s->process || !s->process->alive)
		return;
	s->todo += actions;
	if (s->node_posted || sim_chance(3))
		return; /* perhaps between two steps */
	s->node_posted = true;
	xenidc_loop_post(s->loop, &s->node, poked);
}

/* A chain of things that may allocate is not over yet. */
static bool may_allocate(const struct side *s)
{
	if (s->server || s->allocates)
		return true; /* who listens may be dialled at any time */
	for (unsigned i = 0; i < CHANNELS; i++)
		if (s->chans[i].channel && s->chans[i].connecting)
			return true;
	return false;
}

static void check_chan(struct chan *c)
{
	uint32_t most = c->budget.requests_out, credit;
	struct xenidc_stats stats = { .size = sizeof(stats) };

	xenidc_channel_stats(c->channel, &stats);
	MUST(stats.protocol_errors == 0, "a protocol error was counted");
	histogram_count(c, EV_FRAME, stats.frames_in - c->frames);
	c->frames = stats.frames_in;
	if (!c->up || c->leaving || xenidc_channel_state(c->channel) != XENIDC_CONNECTED)
		return;
	credit = xenidc_channel_request_credit(c->channel);
	MUST(c->in_flight + stats.orphans + credit == most, "of %u requests %u are in flight, %u orphans, %u to be had",
	     most, c->in_flight, stats.orphans, credit);
	MUST(stats.in_flight_in == c->held_count, "%u requests of the peer's are held, not %u", c->held_count,
	     stats.in_flight_in);
	credit = xenidc_channel_message_credit(c->channel);
	if (shadow_peer_left(c))
		return; /* who freed its channel consumes without looking */
	MUST(credit + (c->messages_sent - c->messages_seen) <= c->budget.messages_out,
	     "%u of %u messages are not consumed, but there is credit for %u", c->messages_sent - c->messages_seen,
	     c->budget.messages_out, credit);
}

void side_check(struct side *s)
{
	bool allocates = may_allocate(s);

	MUST(allocates || s->process->allocations == s->allocations, "%llu allocations between connected and idle",
	     (unsigned long long)(s->process->allocations - s->allocations));
	s->allocations = s->process->allocations;
	s->allocates = false;
	for (unsigned i = 0; i < CHANNELS; i++)
		if (s->chans[i].channel)
			check_chan(&s->chans[i]);
}

static void body(struct sim_process *p, void *arg)
{
	struct side *s = arg;
	struct xenidc_loop_options o = { .size = sizeof(o),
					 .wait = config.adaptive ? XENIDC_WAIT_ADAPTIVE : XENIDC_WAIT_BLOCK,
					 .spin_max_ns = 20000 };
	int r = sim_loop_new(p, &o, &s->loop);

	MUST(r == 0, "no loop");
	if (s->server)
		listen_now(s);
	s->allocates = true;
	while (!s->quit) {
		unsigned todo = s->node_posted ? 0 : s->todo;
		s->todo -= todo;
		actor_turn(s, todo);
		r = xenidc_loop_step(s->loop, sim_chance(8) ? (int64_t)sim_between(0, 3 * SIM_MS) : -1);
		MUST(r >= 0, "a step of the loop gives %d", r);
		side_check(s);
		sim_yield();
	}
	for (unsigned i = 0; i < CHANNELS; i++)
		xenidc_channel_free(s->chans[i].channel);
	xenidc_listener_free(s->listener);
	xenidc_loop_free(s->loop);
	s->listener = NULL;
	s->loop = NULL;
}

void side_start(struct side *s)
{
	unsigned index = s->index;
	const char *name = s->name;

	sim_event_stop(&s->life);
	memset(s, 0, sizeof(*s));
	s->index = index;
	s->name = name;
	s->server = index == 0;
	for (unsigned i = 0; i < CHANNELS; i++)
		s->chans[i].side = s;
	s->process = sim_process_new(name);
	sim_start(s->process, body, s);
}

void side_died(struct side *s)
{
	for (unsigned i = 0; i < CHANNELS; i++)
		if (s->chans[i].channel)
			chan_reset(&s->chans[i]);
	s->loop = NULL;
	s->listener = NULL;
	s->process = NULL;
	s->node_posted = false;
}

void sides_forgive(struct side *s, uint64_t ns)
{
	for (unsigned i = 0; i < CHANNELS; i++) {
		struct chan *c = &s->chans[i];
		c->connect_by += c->connect_by ? ns : 0;
		c->idle_by += c->idle_by ? ns : 0;
	}
}

/* Nobody may be late, whoever runs. */
void side_check_times(struct side *s)
{
	if (!s->process || s->process->paused)
		return;
	for (unsigned i = 0; i < CHANNELS; i++) {
		const struct chan *c = &s->chans[i];
		MUST(!c->channel || !c->idle_by || sim_now() <= c->idle_by || c->held_count,
		     "%s: connection %u is not idle yet, %llu ms too late", s->name, c->serial,
		     (unsigned long long)((sim_now() - c->idle_by) / SIM_MS));
		MUST(!c->channel || !c->connect_by || sim_now() <= c->connect_by,
		     "%s: a connect has no end yet, %llu ms too late", s->name,
		     (unsigned long long)((sim_now() - c->connect_by) / SIM_MS));
	}
}
