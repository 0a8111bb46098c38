/* SPDX-License-Identifier: MIT */
/* How channels come to be. */
#include "harness.h"

#include <errno.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "xenidc-core/hello.h"

/* The text says what was tried, and is one printable line. */
static void check_words(const struct xenidc_error *err, const char *part)
{
	CHECK_HAS(err->text, part);
	CHECK_OP(strlen(err->text), <, sizeof(err->text));
	for (const char *c = err->text; *c; c++)
		CHECK(*c >= ' ' && *c <= '~');
	CHECK_OP(err->code, <, 0);
}

static void wait_refused(struct pair *p, struct end *end)
{
	unsigned before = end->idle;

	UNTIL(p, end->idle > before);
	CHECK_EQ(end->connected, 0);
	CHECK_EQ(end->disconnecting, 0);
	CHECK_EQ(xenidc_channel_state(end->channel), XENIDC_IDLE);
	CHECK(!xenidc_channel_limits(end->channel));
}

void case_connect(struct pair *p)
{
	const struct xenidc_budget *ours, *theirs;
	struct call call;

	p->server.on.request = serve_echo;
	end_new(&p->client);
	CHECK_EQ(xenidc_channel_state(p->client.channel), XENIDC_IDLE);
	CHECK(!xenidc_channel_limits(p->client.channel));
	pair_open(p);
	CHECK_EQ(p->client.connected, 1);
	CHECK_EQ(p->server.connected, 1);
	CHECK_EQ(xenidc_channel_state(p->client.channel), XENIDC_CONNECTED);
	CHECK_EQ(xenidc_channel_state(p->server.channel), XENIDC_CONNECTED);
	CHECK(xenidc_channel_loop(p->server.channel) == p->server.loop);
	ours = &p->client.limits.budget;
	theirs = &p->server.limits.budget;
	CHECK_EQ(ours->requests_out, 32);
	CHECK_EQ(theirs->requests_in, 32);
	CHECK_EQ(ours->payload, 256);
	CHECK_EQ(theirs->payload, 256);
	CHECK_EQ(ours->out[0].size, 4096);
	CHECK_EQ(theirs->peer_out[0].count, 16);
	CHECK(!p->client.limits.map && !p->server.limits.map);
	CHECK_OP(p->client.limits.incarnation, >, 0);
	CHECK_STR(p->client.limits.peer.transport, p->column->scheme);
	CHECK_STR(p->server.limits.peer.transport, p->column->scheme);
	CHECK_OP(strlen(p->server.limits.peer.address), >, 0);
	CHECK_EQ(p->server.limits.peer.version_major, XI_PROTOCOL_MAJOR);
	CHECK_EQ(p->client.limits.peer.version_major, XI_PROTOCOL_MAJOR);
	CHECK_EQ(xenidc_channel_request_credit(p->client.channel), 32);
	CHECK_EQ(xenidc_channel_message_credit(p->server.channel), 32);
	CHECK_EQ(xenidc_channel_limits(p->client.channel)->incarnation, p->client.limits.incarnation);
	call_simple(&p->client, &call, "hello", 5);
	CALL_END(&call);
	CHECK_END(&call, XENIDC_REPLIED);
	CHECK_EQ(call.result.status, 5);
	CHECK_EQ(call.result.payload_len, 5);
	CHECK_MEM(call.payload, "hello", 5);
	pair_close(p);
	CHECK_EQ(p->client.idle, 1);
	CHECK_EQ(p->server.idle, 1);
	CHECK_REASON(p->client.why.reason, XENIDC_REASON_CLOSED);
	CHECK_REASON(p->server.why.reason, XENIDC_REASON_CLOSED);
	CHECK(!p->client.why.by_peer && p->server.why.by_peer);
}

void case_limits_meet(struct pair *p)
{
	struct xenidc_budget *a = &p->client.options.budget, *b = &p->server.options.budget;
	const struct xenidc_budget *ours, *theirs;

	*a = (struct xenidc_budget){ .requests_out = 5, .requests_in = 7, .messages_out = 3, .messages_in = 90 };
	*b = (struct xenidc_budget){ .requests_out = 100, .requests_in = 4, .messages_out = 9, .messages_in = 20 };
	a->payload = 1000;
	b->payload = 300;
	a->refs = 2;
	b->refs = 9;
	a->out[0] = (struct xenidc_slot_class){ 4096, 6 };
	b->peer_out[0] = (struct xenidc_slot_class){ 4096, 3 };
	a->in[0] = (struct xenidc_slot_class){ 5000, 2 };
	b->peer_in[0] = (struct xenidc_slot_class){ 65536, 8 };
	pair_open(p);
	ours = &p->client.limits.budget;
	theirs = &p->server.limits.budget;
	CHECK_EQ(ours->requests_out, 4);
	CHECK_EQ(theirs->requests_in, 4);
	CHECK_EQ(ours->requests_in, 7);
	CHECK_EQ(theirs->requests_out, 7);
	CHECK_EQ(ours->messages_out, 3);
	CHECK_EQ(ours->messages_in, 9);
	CHECK_EQ(theirs->messages_out, 9);
	CHECK_EQ(ours->payload, 300);
	CHECK_EQ(theirs->payload, 300);
	CHECK_EQ(ours->refs, 2);
	CHECK_EQ(theirs->refs, 2);
	CHECK_EQ(ours->out[0].size, 4096);
	CHECK_EQ(ours->out[0].count, 3);
	CHECK_EQ(ours->in[0].size, 8192);
	CHECK_EQ(ours->in[0].count, 2);
	CHECK_MEM(ours->out, theirs->peer_out, sizeof(ours->out));
	CHECK_MEM(ours->in, theirs->peer_in, sizeof(ours->in));
	CHECK_MEM(ours->peer_out, theirs->out, sizeof(ours->out));
	CHECK_EQ(xenidc_channel_request_credit(p->client.channel), 4);
	CHECK_EQ(xenidc_channel_message_credit(p->client.channel), 3);
}

static int refuse(xenidc_listener *listener, const struct xenidc_peer *peer, struct xenidc_accept *accept)
{
	(void)listener;
	(void)peer;
	CHECK_EQ(accept->refuse_reason, XENIDC_REASON_DENIED);
	accept->refuse_reason = XENIDC_REASON_RESOURCE;
	strcpy(accept->refuse_text, "out of paper\nuse \033[1mthe other printer");
	return -ENOSPC;
}

void case_refuse(struct pair *p)
{
	p->listening.accept = refuse;
	pair_listen(p);
	end_connect(&p->client);
	wait_refused(p, &p->client);
	CHECK_REASON(p->client.idle_why.reason, XENIDC_REASON_RESOURCE);
	CHECK(p->client.idle_why.by_peer);
	check_words(&p->client.idle_why, "out of paper");
	check_words(&p->client.idle_why, "the other printer");
	CHECK(!p->server.channel);
}

static int refuse_silently(xenidc_listener *listener, const struct xenidc_peer *peer, struct xenidc_accept *accept)
{
	(void)listener;
	(void)peer;
	(void)accept;
	return -EACCES;
}

void case_refuse_default(struct pair *p)
{
	p->listening.accept = refuse_silently;
	pair_listen(p);
	end_connect(&p->client);
	wait_refused(p, &p->client);
	CHECK_REASON(p->client.idle_why.reason, XENIDC_REASON_DENIED);
	CHECK(p->client.idle_why.by_peer);
	/* The same channel can try again, and is told again. */
	end_connect(&p->client);
	wait_refused(p, &p->client);
	CHECK_EQ(p->client.idle, 2);
}

static int accept_some(xenidc_listener *listener, const struct xenidc_peer *peer, struct xenidc_accept *accept)
{
	struct pair *p = xenidc_listener_user(listener);

	CHECK_STR(peer->service, "disk");
	CHECK_EQ(peer->auth_len, 6);
	CHECK_MEM(peer->auth, "secret", 6);
	CHECK_STR(peer->transport, p->column->scheme);
	CHECK_EQ(peer->version_major, XI_PROTOCOL_MAJOR);
	CHECK(accept->channel.user == &p->server);
	accept->channel.budget.requests_in = 3;
	accept->channel.user = p->user;
	return 0;
}

void case_accept_hook(struct pair *p)
{
	static struct end other;

	end_init(&other, p, "other", &p->server);
	p->user = &other;
	p->listening.accept = accept_some;
	p->client.options.service = "disk";
	p->client.options.auth = "secret";
	p->client.options.auth_len = 6;
	pair_listen(p);
	end_connect(&p->client);
	UNTIL(p, p->client.connected && other.connected);
	CHECK_EQ(p->server.connected, 0);
	CHECK_EQ(p->client.limits.budget.requests_out, 3);
	CHECK_STR(other.limits.peer.service, "disk");
}

static int accept_process(xenidc_listener *listener, const struct xenidc_peer *peer, struct xenidc_accept *accept)
{
	const struct pair *p = xenidc_listener_user(listener);

	(void)accept;
	CHECK(peer->has_uid || peer->has_domid);
	if (peer->has_uid && !p->column->simulated) {
		CHECK_EQ(peer->uid, getuid());
		CHECK_EQ(peer->gid, getgid());
		CHECK_EQ(peer->pid, getpid());
	}
	return 0;
}

void case_identity(struct pair *p)
{
	p->listening.accept = accept_process;
	pair_open(p);
	CHECK(p->client.limits.peer.has_uid || p->client.limits.peer.has_domid);
	CHECK_EQ(p->client.limits.peer.has_uid, p->server.limits.peer.has_uid);
	if (!p->column->simulated)
		CHECK_EQ(p->client.limits.peer.pid, getpid());
}

void case_service(struct pair *p)
{
	p->listening.service = "disk";
	pair_listen(p);
	p->client.options.service = "printer";
	end_connect(&p->client);
	wait_refused(p, &p->client);
	CHECK_REASON(p->client.idle_why.reason, XENIDC_REASON_SERVICE);
	check_words(&p->client.idle_why, "service");
	end_free(&p->client);
	p->client.options.service = "disk";
	pair_open(p);
	CHECK_STR(p->server.limits.peer.service, "disk");
}

/* Address and scheme under which connect messages are altered. */
static void dial_altered(struct pair *p)
{
	char address[XENIDC_ADDRESS_MAX];

	pair_listen(p);
	snprintf(address, sizeof(address), "%s%s", altered_scheme, strchr(p->address, ':'));
	end_new(&p->client);
	CHECK_EQ(xenidc_channel_connect(p->client.channel, address, NULL), 0);
}

static void put_u16(uint8_t *at, uint16_t value)
{
	memcpy(at, &value, sizeof(value));
}

static void make_major(uint8_t *bytes, uint32_t length)
{
	put_u16(bytes + 6, 40);
	put_u16(bytes + 8, 42);
	xi_hello_seal(bytes, length);
}

void case_version_major(struct pair *p)
{
	char ours[32];

	column_alter(make_major);
	dial_altered(p);
	wait_refused(p, &p->client);
	CHECK_REASON(p->client.idle_why.reason, XENIDC_REASON_VERSION);
	snprintf(ours, sizeof(ours), "%d", XI_PROTOCOL_MAJOR);
	check_words(&p->client.idle_why, "42");
	check_words(&p->client.idle_why, ours);
	check_words(&p->client.idle_why, "upgrade");
	CHECK(!p->server.channel);
}

/* Only the range that is offered; what was chosen stays. */
static void make_minor(uint8_t *bytes, uint32_t length)
{
	if (bytes[4] != XI_HELLO_CONNECT)
		return;
	put_u16(bytes + 10, 7);
	xi_hello_seal(bytes, length);
}

void case_version_minor(struct pair *p)
{
	struct call call;

	p->server.on.request = serve_echo;
	column_alter(make_minor);
	dial_altered(p);
	UNTIL(p, p->client.connected && p->server.connected);
	call_simple(&p->client, &call, "x", 1);
	CALL_END(&call);
	CHECK_END(&call, XENIDC_REPLIED);
	CHECK_EQ(p->server.limits.peer.version_minor, 7); /* its own, whatever is in use */
}

void case_nobody_listens(struct pair *p)
{
	struct xenidc_error err = { 0 };
	int e;

	end_new(&p->client);
	e = xenidc_channel_connect(p->client.channel, p->address, &err);
	if (e == 0) {
		wait_refused(p, &p->client);
		err = p->client.idle_why;
	} else {
		CHECK_EQ(err.code, e);
	}
	CHECK_REASON(err.reason, XENIDC_REASON_UNREACHABLE);
	CHECK(!err.by_peer);
	/* What was tried: the address. What to do next: see whether something listens there. */
	check_words(&err, strchr(p->address, ':') + 1);
	check_words(&err, "listen");
}

void case_connect_states(struct pair *p)
{
	struct xenidc_error err;
	struct xenidc_buffer buffer;
	struct call call = { 0 };

	pair_listen(p);
	end_new(&p->client);
	CHECK_EQ(xenidc_channel_close(p->client.channel, 0), -EALREADY);
	CHECK_EQ(xenidc_send(p->client.channel, "x", 1), -ENOTCONN);
	CHECK_EQ(call_try(&p->client, &call), -ENOTCONN);
	CHECK_EQ(xenidc_buffer_get(p->client.channel, XENIDC_OUT, 1, &buffer), -ENOTCONN);
	end_connect(&p->client);
	CHECK_EQ(xenidc_channel_state(p->client.channel), XENIDC_CONNECTING);
	CHECK_EQ(xenidc_channel_connect(p->client.channel, p->address, &err), -EALREADY);
	CHECK_OP(strlen(err.text), >, 0);
	CHECK_EQ(call_try(&p->client, &call), -ENOTCONN);
	UNTIL(p, p->client.connected && p->server.connected);
	CHECK_EQ(xenidc_channel_connect(p->client.channel, p->address, &err), -EISCONN);
	CHECK_OP(strlen(err.text), >, 0);
	/* What a listener made is not for connecting. */
	CHECK_OP(xenidc_channel_connect(p->server.channel, p->address, &err), <, 0);
	CHECK_EQ(xenidc_channel_close(p->client.channel, 0), 0);
	CHECK_EQ(xenidc_channel_state(p->client.channel), XENIDC_DISCONNECTING);
	CHECK_EQ(xenidc_channel_connect(p->client.channel, p->address, &err), -EBUSY);
	CHECK_OP(strlen(err.text), >, 0);
	CHECK_EQ(xenidc_send(p->client.channel, "x", 1), -ENOTCONN);
	CHECK_EQ(call_try(&p->client, &call), -ENOTCONN);
	CHECK_EQ(xenidc_buffer_get(p->client.channel, XENIDC_OUT, 1, &buffer), -ENOTCONN);
	UNTIL(p, p->client.idle && p->server.idle);
	CHECK_EQ(xenidc_channel_close(p->client.channel, 0), -EALREADY);
	CHECK_STR(xenidc_state_name(xenidc_channel_state(p->client.channel)), "idle");
}

void case_connect_timeout(struct pair *p)
{
	uint64_t begin;

	p->client.options.times.connect_ns = 50 * MS;
	pair_listen(p);
	end_freeze(&p->server, true);
	begin = pair_now(p);
	end_connect(&p->client);
	wait_refused(p, &p->client);
	CHECK_REASON(p->client.idle_why.reason, XENIDC_REASON_TIMEOUT);
	CHECK_OP(pair_now(p) - begin, >=, 50 * MS);
	check_words(&p->client.idle_why, strchr(p->address, ':') + 1);
	/* What the server finds when it looks at last is over already. */
	end_freeze(&p->server, false);
	p->client.options.times.connect_ns = 0;
	end_free(&p->client);
	pair_open(p);
	CHECK_EQ(p->server.connected, 1);
}

/* The dialler ends its attempt after `steps`; false: the connect was through before. */
static bool cut_after(struct pair *p, unsigned steps, void (*cut)(struct pair *p))
{
	end_connect(&p->client);
	for (unsigned i = 0; i < steps && !p->client.connected; i++)
		pair_step(p);
	if (p->client.connected)
		return false;
	cut(p);
	if (p->server.channel)
		UNTIL(p, p->server.idle);
	end_free(&p->server);
	p->server.idle = p->server.connected = p->client.idle = 0;
	return true;
}

static void cut_by_close(struct pair *p)
{
	CHECK_EQ(xenidc_channel_close(p->client.channel, 0), 0);
	CHECK_EQ(p->client.idle, 0);
	UNTIL(p, p->client.idle);
	CHECK_REASON(p->client.idle_why.reason, XENIDC_REASON_CANCELLED);
	CHECK_EQ(p->client.disconnecting, 0);
}

static void cut_by_free(struct pair *p)
{
	end_free(&p->client);
	CHECK_EQ(p->client.idle, 0);
}

static void cut_everywhere(struct pair *p, void (*cut)(struct pair *p))
{
	struct call call;
	unsigned steps = 0;

	pair_allow(p);
	p->server.on.request = serve_echo;
	pair_listen(p);
	while (cut_after(p, steps, cut))
		CHECK_OP(++steps, <, 2000);
	CHECK_OP(steps, >, 0);
	/* The listener is none the worse for it. */
	UNTIL(p, p->server.connected);
	call_simple(&p->client, &call, "x", 1);
	CALL_END(&call);
	CHECK_END(&call, XENIDC_REPLIED);
}

void case_close_connecting(struct pair *p)
{
	cut_everywhere(p, cut_by_close);
}

void case_free_connecting(struct pair *p)
{
	cut_everywhere(p, cut_by_free);
}

/* False: the client was connected before the listener went. */
static bool free_listener_after(struct pair *p, unsigned steps)
{
	uint64_t begin = pair_now(p);
	bool through;

	column_address(p->column, p->address);
	p->server.on.request = serve_echo;
	pair_listen(p);
	end_connect(&p->client);
	for (unsigned i = 0; i < steps && !p->client.connected; i++)
		pair_step(p);
	through = p->client.connected;
	xenidc_listener_free(p->listener);
	p->listener = NULL;
	if (through)
		return false;
	/* Either it gets through, as what the listener had made lives on, or it is told soon. */
	UNTIL(p, p->client.connected || p->client.idle);
	CHECK_OP(pair_now(p) - begin, <, pair_time(p, 5 * SECOND));
	if (p->client.idle)
		CHECK(p->client.idle_why.reason != XENIDC_REASON_TIMEOUT);
	pair_close(p);
	end_free(&p->client);
	end_free(&p->server);
	p->client.idle = p->client.connected = p->server.idle = p->server.connected = 0;
	return true;
}

void case_listener_freed(struct pair *p)
{
	struct call call;
	unsigned steps = 0;

	pair_allow(p);
	while (free_listener_after(p, steps))
		CHECK_OP(++steps, <, 2000);
	UNTIL(p, p->server.connected);
	call_simple(&p->client, &call, "x", 1);
	CALL_END(&call);
	CHECK_END(&call, XENIDC_REPLIED);
}

#define MANY 200

static struct {
	struct end client[MANY], server[MANY];
	struct call call[MANY];
	unsigned accepted;
} many;

static int accept_many(xenidc_listener *listener, const struct xenidc_peer *peer, struct xenidc_accept *accept)
{
	(void)peer;
	CHECK_OP(many.accepted, <, MANY);
	end_init(&many.server[many.accepted], xenidc_listener_user(listener), "one of many", NULL);
	many.server[many.accepted].on.request = serve_echo;
	accept->channel.user = &many.server[many.accepted];
	return 0;
}

static void accepted_many(struct pair *p, xenidc_channel *channel)
{
	(void)p;
	CHECK(xenidc_channel_user(channel) == &many.server[many.accepted]);
	many.server[many.accepted++].channel = channel;
}

static unsigned sum(const struct end *ends, unsigned count, size_t member)
{
	unsigned n = 0;

	for (unsigned i = 0; i < count; i++)
		n += *(const unsigned *)(const void *)((const char *)&ends[i] + member);
	return n;
}
#define SUM(ends, count, member) sum(ends, count, offsetof(struct end, member))

static unsigned calls_ended(unsigned count)
{
	unsigned n = 0;

	for (unsigned i = 0; i < count; i++)
		n += many.call[i].ends;
	return n;
}

/* As many as the descriptors of one process suffice for, of which a channel has at most a few at each end. */
static unsigned how_many(const struct pair *p)
{
	struct rlimit limit;

	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
	if (p->column->simulated || limit.rlim_cur / 12 > MANY)
		return MANY;
	return (unsigned)(limit.rlim_cur / 12);
}

void case_many_channels(struct pair *p)
{
	unsigned count = how_many(p);
	struct xenidc_budget small = { .requests_out = 2, .requests_in = 2, .messages_out = 2, .messages_in = 2 };

	small.no_slots = true;
	pair_allow(p);
	p->server.options.budget = small;
	p->listening.accept = accept_many;
	p->listening.half_open_max = MANY;
	p->accepted = accepted_many;
	pair_listen(p);
	for (unsigned i = 0; i < count; i++) {
		end_init(&many.client[i], p, "one of many", &p->client);
		many.client[i].options.budget = small;
		end_connect(&many.client[i]);
	}
	UNTIL(p, SUM(many.client, count, connected) == count && SUM(many.server, count, connected) == count);
	for (unsigned i = 0; i < count; i++)
		call_simple(&many.client[i], &many.call[i], &i, sizeof(i));
	UNTIL(p, calls_ended(count) == count);
	for (unsigned i = 0; i < count; i++) {
		CHECK_END(&many.call[i], XENIDC_REPLIED);
		CHECK_MEM(many.call[i].payload, &i, sizeof(i));
		CHECK_EQ(xenidc_channel_close(many.client[i].channel, SECOND), 0);
	}
	UNTIL(p, SUM(many.client, count, idle) == count && SUM(many.server, count, idle) == count);
	for (unsigned i = 0; i < count; i++) {
		end_free(&many.client[i]);
		end_free(&many.server[i]);
	}
}
