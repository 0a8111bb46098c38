/* SPDX-License-Identifier: MIT */
/* Clients of the general run: what they do with their channels, and the handlers that tell of connections. */
#include <errno.h>
#include <string.h>

#include "model.h"

#define LINGER_MAX (300 * SIM_MS)

/* --- Options */
static void random_classes(struct xenidc_slot_class cls[XENIDC_CLASSES_MAX])
{
	cls[0] = (struct xenidc_slot_class){ 4096, 1 + sim_below(4) };
	if (sim_chance(2))
		cls[1] = (struct xenidc_slot_class){ 4096 * (2 + sim_below(4)), 1 + sim_below(3) };
	if (sim_chance(12))
		cls[2] = (struct xenidc_slot_class){ 147456, 1 };
}

void actor_options(struct side *s, struct xenidc_channel_options *o)
{
	struct xenidc_budget *b = &o->budget;

	*o = (struct xenidc_channel_options){ .size = sizeof(*o), .times = config.times };
	o->handlers = actor_handlers;
	o->map = config.map;
	o->digest = config.digest;
	b->size = sizeof(*b);
	b->requests_out = 1 + sim_below(8);
	b->requests_in = 1 + sim_below(8);
	b->messages_out = 1 + sim_below(8);
	b->messages_in = 1 + sim_below(8);
	b->payload = sim_chance(8) ? 4000 : 16 + sim_below(300);
	b->refs = 1 + sim_below(REFS);
	b->no_slots = sim_chance(10);
	if (!b->no_slots) {
		random_classes(b->out);
		random_classes(b->in);
		random_classes(b->peer_out);
		random_classes(b->peer_in);
	}
	if (!s->server && config.retry)
		o->retry = (struct xenidc_retry){ .enabled = true,
						  .backoff_min_ns = SIM_MS,
						  .backoff_max_ns = 50 * SIM_MS };
}

/* --- Handlers */
void actor_enter(struct chan *c)
{
	MUST(!c->side->handlers, "a handler runs inside another");
	MUST(!c->side->calls, "a handler runs inside a call");
	MUST(sim_current() == c->side->process, "a handler runs in the wrong process");
	c->side->handlers++;
}

/* Handlers may do all that others may. */
void actor_leave(struct chan *c)
{
	if (sim_chance(6) && !c->side->quit)
		actor_turn(c->side, 1);
	c->side->handlers--;
}

static void connected(xenidc_channel *channel, const struct xenidc_limits *limits)
{
	struct chan *c = chan_of(channel);

	actor_enter(c);
	MUST(c->connecting && !c->up, "connected, but nobody asked for it");
	MUST(limits->map == (config.map && config.personality == MAPPED), "MAP was negotiated wrongly");
	MUST(limits->budget.payload >= 16 && limits->budget.requests_out && limits->budget.requests_in,
	     "the limits are nonsense");
	c->up = true;
	c->connecting = c->leaving = c->closed = c->was_told = c->want_writable = false;
	c->connect_by = c->idle_by = 0;
	c->up_since = sim_now();
	c->budget = limits->budget;
	c->map = limits->map;
	c->sent = c->last_seen = c->messages_sent = c->messages_seen = c->last_message_seen = 0;
	c->open_count = c->in_flight = c->taken_count = 0;
	c->side->allocates = true;
	shadow_connected(c);
	histogram_count(c, EV_CONNECTED, 1);
	sim_trace("%s: connection %u is up", c->side->name, c->serial);
	actor_leave(c);
}

static void message(xenidc_channel *channel, const void *payload, uint32_t length)
{
	struct chan *c = chan_of(channel);

	actor_enter(c);
	MUST(c->up, "a message on a channel that is not connected");
	uint32_t index = shadow_arrived(c, false, payload, length);
	sim_trace("message %u is seen by %s", index, c->side->name);
	histogram_count(c, EV_MESSAGE, 1);
	actor_leave(c);
}

static void writable(xenidc_channel *channel)
{
	struct chan *c = chan_of(channel);

	actor_enter(c);
	MUST(c->up && !c->was_told, "`writable` on a channel that is not connected");
	c->want_writable = false;
	sim_trace("connection %u is writable", c->serial);
	histogram_count(c, EV_WRITABLE, 1);
	actor_leave(c);
}

static void stalled(xenidc_channel *channel, bool is)
{
	struct chan *c = chan_of(channel);

	uint64_t long_ago = sim_now() - config.times.stalled_ns - 2 * config.times.heartbeat_ns;

	actor_enter(c);
	MUST(c->up && (!c->was_told || c->closed), "`stalled` on a channel that is not connected");
	MUST(!is || shadow_peer_left(c) || shadow_disturbed_since(long_ago),
	     "nothing is the matter, but connection %u is stalled", c->serial);
	histogram_count(c, EV_STALLED, 1);
	actor_leave(c);
}

static void check_reason(const struct xenidc_error *why)
{
	MUST(why->reason != XENIDC_REASON_PROTOCOL, "a connection ends by a protocol error: %s", why->text);
	MUST(why->reason != XENIDC_REASON_PEER_DIED || histogram_fault_since(FAULT_DEATH, 1), "nobody died: %s",
	     why->text);
	MUST(why->reason != XENIDC_REASON_NONE && why->text[0], "a connection ends without a reason");
}

static void disconnecting(xenidc_channel *channel, const struct xenidc_error *why)
{
	struct chan *c = chan_of(channel);
	uint64_t by = sim_now() + config.times.close_ns + side_slack();

	actor_enter(c);
	MUST(c->up && !c->was_told, "disconnecting twice, or what is not connected");
	check_reason(why);
	MUST(c->closed || shadow_peer_left(c) || shadow_disturbed_since(c->up_since),
	     "nothing is the matter, but connection %u ends: %s", c->serial, why->text);
	c->was_told = c->leaving = true;
	c->why = *why;
	if (!c->idle_by || !c->closed)
		c->idle_by = by;
	histogram_count(c, EV_DISCONNECTING, 1);
	sim_trace("%s: connection %u is disconnecting: %s", c->side->name, c->serial, why->text);
	actor_leave(c);
}

static void leave_it(struct chan *c);

static void idle(xenidc_channel *channel, const struct xenidc_error *why)
{
	struct chan *c = chan_of(channel);

	actor_enter(c);
	check_reason(why);
	MUST(c->up ? c->was_told : c->connecting, "idle, but was idle before, or was not told disconnecting");
	sim_trace("%s: connection %u is idle: %s", c->side->name, c->serial, why->text);
	histogram_count(c, EV_IDLE, 1);
	if (c->up)
		shadow_idle(c, why);
	c->side->allocates = true;
	c->up = c->leaving = c->was_told = c->connecting = false;
	c->idle_by = c->connect_by = 0;
	c->open_count = c->taken_count = 0;
	if (!c->accepted && config.retry && !c->closed) {
		c->connecting = true;
		c->connect_by = sim_now() + 63 * SIM_MS + config.times.connect_ns + side_slack();
	}
	c->closed = false;
	actor_leave(c);
	if (c->channel == channel && (c->accepted ? !sim_chance(4) : sim_chance(12)))
		leave_it(c);
}

const struct xenidc_handlers actor_handlers = {
	.connected = connected,
	.request = actor_request,
	.cancel = actor_cancel_asked,
	.message = message,
	.writable = writable,
	.abandoned = actor_abandoned,
	.stalled = stalled,
	.disconnecting = disconnecting,
	.idle = idle,
};

/* --- What a client does with its channels */
static void leave_it(struct chan *c)
{
	xenidc_channel *channel = c->channel;
	struct side *s = c->side;

	histogram_count(c, EV_FREE, 1);
	sim_trace("%s: connection %u is freed", s->name, c->serial);
	s->allocates = true;
	chan_reset(c);
	s->calls++;
	xenidc_channel_free(channel);
	s->calls--;
}

static void close_it(struct chan *c, uint64_t linger)
{
	bool connecting = c->connecting;

	if (!connecting && !c->up)
		return;
	if (c->closed)
		return;
	sim_trace("%s: connection %u is closed, linger %llu us", c->side->name, c->serial,
		  (unsigned long long)linger / 1000);
	histogram_count(c, linger ? EV_LINGER : EV_CLOSE, 1);
	c->closed = true;
	if (c->up) {
		shadow_left(c);
		c->closed_at = sim_now();
		c->linger_until = sim_now() + linger;
		if (!c->was_told)
			c->idle_by = sim_now() + linger + config.times.close_ns + side_slack();
		c->leaving = true;
	}
	int r = CALL(c->side, xenidc_channel_close(c->channel, linger));
	MUST(r == 0, "a channel cannot be closed: %d", r);
}

static void connect_it(struct chan *c)
{
	struct xenidc_error err = { 0 };
	char address[64];

	if (c->up || c->connecting)
		return;
	side_address(address, sizeof(address));
	histogram_count(c, EV_CONNECT, 1);
	c->side->allocates = true;
	c->side->calls++;
	int r = xenidc_channel_connect(c->channel, address, &err);
	c->side->calls--;
	MUST(r == 0 || (r == -EBUSY && err.reason == XENIDC_REASON_LIMIT && config.personality == MAPPED) ||
		     (r == -ENOMEM && c->side->process->short_until),
	     "a connect cannot even start: %d, %s", r, err.text);
	c->connecting = r == 0;
	c->connect_by = r ? 0 : sim_now() + config.times.connect_ns + side_slack();
}

static void new_channel(struct side *s)
{
	struct chan *c = !s->chans[0].channel ? &s->chans[0] : &s->chans[1];
	struct xenidc_channel_options o;
	struct xenidc_error err = { 0 };

	if (s->server || c->channel)
		return;
	actor_options(s, &o);
	o.user = c;
	s->allocates = true;
	*c = (struct chan){ .side = s };
	int r = xenidc_channel_new(s->loop, &o, &c->channel, &err);
	MUST(r == 0 || (r == -ENOMEM && s->process->short_until), "no channel: %s", err.text);
	if (r == 0)
		connect_it(c);
}

static void act_up(struct chan *c)
{
	uint32_t r = sim_below(100);

	if (r < 38 && (xenidc_channel_request_credit(c->channel) || sim_chance(6)))
		actor_submit(c);
	else if (r < 62 && (xenidc_channel_message_credit(c->channel) || sim_chance(6)))
		actor_send(c);
	else if (r >= 62 && r < 72)
		actor_cancel(c);
	else if (r >= 72 && r < 76)
		actor_get(c);
	else if (r >= 76 && r < 80)
		actor_scribble(c);
	else if (r < 96 && c->held_count)
		actor_answer(c, sim_below(c->held_count));
	else if (r == 96 && sim_chance(config.calm))
		close_it(c, 0);
	else if (r == 97 && sim_chance(config.calm))
		close_it(c, sim_between(1, LINGER_MAX));
	else if (r == 98 && sim_chance(6 * config.calm))
		leave_it(c);
}

static void act(struct side *s)
{
	struct chan *c = &s->chans[sim_below(s->server ? CHANNELS : 2)];

	if (!c->channel) {
		new_channel(s);
		return;
	}
	if (c->up && !c->leaving && !c->closed)
		act_up(c);
	else if (c->held_count)
		actor_answer(c, sim_below(c->held_count));
	else if (!c->up && !c->connecting && c->accepted)
		leave_it(c);
	else if (!c->up && !c->connecting)
		connect_it(c);
	else if (sim_chance(40))
		close_it(c, 0);
	else if (sim_chance(100))
		leave_it(c);
}

void actor_turn(struct side *s, unsigned actions)
{
	if (s->winding_up) {
		actor_wind_up(s);
		return;
	}
	while (actions-- > 0)
		act(s);
	struct chan *c = &s->chans[sim_below(CHANNELS)];
	if (c->channel && !s->handlers && sim_chance(16))
		actor_count_buffers(c);
}

void actor_wind_up(struct side *s)
{
	for (unsigned i = 0; i < CHANNELS; i++) {
		struct chan *c = &s->chans[i];
		while (c->channel && c->held_count)
			actor_answer(c, 0);
		if (c->channel && (c->up || c->connecting))
			close_it(c, c->up ? LINGER_MAX : 0);
	}
}
