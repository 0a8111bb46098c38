/* SPDX-License-Identifier: MIT */
/* Listeners: their limits, and addresses that cannot be used. */
#define _GNU_SOURCE
#include "harness.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

void case_listen_twice(struct pair *p)
{
	struct xenidc_error err = { 0 };
	xenidc_listener *second;

	pair_listen(p);
	CHECK_EQ(xenidc_listener_new(p->client.loop, p->address, &p->listening, &second, &err), -EADDRINUSE);
	CHECK_EQ(err.code, -EADDRINUSE);
	CHECK_HAS(err.text, strchr(p->address, ':') + 1);
	CHECK_STR(xenidc_listener_address(p->listener), p->address);
	/* The first one goes on. */
	pair_open(p);
	pair_close(p);
	/* Once it is gone, the address is free. */
	xenidc_listener_free(p->listener);
	pair_listen(p);
}

#define CROWD 5
static struct end crowd[CROWD], served[CROWD];

static int accept_crowd(xenidc_listener *listener, const struct xenidc_peer *peer, struct xenidc_accept *accept)
{
	struct pair *p = xenidc_listener_user(listener);
	unsigned *n = p->user;

	(void)peer;
	CHECK_OP(*n, <, CROWD);
	end_init(&served[*n], p, "served", NULL);
	accept->channel.user = &served[*n];
	return 0;
}

static void accepted_crowd(struct pair *p, xenidc_channel *channel)
{
	unsigned *n = p->user;

	served[(*n)++].channel = channel;
}

/* A listener, with `count` ends that will want to connect to it. */
static void crowd_begin(struct pair *p, unsigned count, unsigned *accepted)
{
	*accepted = 0;
	p->user = accepted;
	pair_allow(p);
	p->listening.accept = accept_crowd;
	p->accepted = accepted_crowd;
	pair_listen(p);
	for (unsigned i = 0; i < count; i++)
		end_init(&crowd[i], p, "one of a crowd", &p->client);
}

static void crowd_free(struct pair *p)
{
	for (unsigned i = 0; i < CROWD; i++)
		end_free(&crowd[i]);
	for (unsigned i = 0; i < CROWD; i++) {
		if (served[i].connected)
			UNTIL(p, served[i].idle);
		end_free(&served[i]);
	}
}

static void check_refused(const struct end *end, enum xenidc_reason reason)
{
	CHECK_EQ(end->connected, 0);
	CHECK_REASON(end->idle_why.reason, reason);
	CHECK(end->idle_why.by_peer);
	CHECK_OP(strlen(end->idle_why.text), >, 0);
}

void case_channels_max(struct pair *p)
{
	unsigned accepted;

	p->listening.channels_max = 2;
	crowd_begin(p, 4, &accepted);
	for (int i = 0; i < 2; i++) {
		end_connect(&crowd[i]);
		UNTIL(p, crowd[i].connected && served[i].connected);
	}
	end_connect(&crowd[2]);
	UNTIL(p, crowd[2].idle);
	check_refused(&crowd[2], XENIDC_REASON_LIMIT);
	CHECK_EQ(accepted, 2);
	/* A place that is left can be taken. */
	CHECK_EQ(xenidc_channel_close(crowd[0].channel, 0), 0);
	UNTIL(p, crowd[0].idle && served[0].idle);
	end_free(&served[0]);
	served[0].connected = 0;
	end_connect(&crowd[3]);
	UNTIL(p, crowd[3].connected);
	crowd_free(p);
}

/* Two peers that never go on fill the listener; they are thrown out after connect_ns, and then a third one gets in. */
void case_half_open_max(struct pair *p)
{
	unsigned accepted, done = 0;
	uint64_t begin;

	p->listening.half_open_max = 2;
	p->server.options.times.connect_ns = 200 * MS;
	crowd_begin(p, CROWD, &accepted);
	/* They have dialled, but do not get the processor any more. */
	begin = pair_now(p);
	for (int i = 0; i < 4; i++)
		end_connect(&crowd[i]);
	end_freeze(&p->client, true);
	pair_pass(p, pair_time(p, 300 * MS));
	CHECK_OP(accepted, <=, 2);
	end_freeze(&p->client, false);
	/* Whoever had not got through by then is told. */
	for (int i = 0; i < 4; i++) {
		UNTIL(p, crowd[i].idle || crowd[i].connected);
		done += crowd[i].connected;
	}
	CHECK_OP(done, <=, 2);
	CHECK_OP(pair_now(p) - begin, <, pair_time(p, 5 * SECOND));
	end_connect(&crowd[4]);
	UNTIL(p, crowd[4].connected);
	crowd_free(p);
}

void case_bytes_max(struct pair *p)
{
	struct xenidc_budget budget = { 0 };
	unsigned accepted;

	CHECK_EQ(xenidc_budget_complete(&budget, NULL), 0);
	p->listening.bytes_max = xenidc_budget_bytes(&budget) * 3 / 2;
	crowd_begin(p, 4, &accepted);
	end_connect(&crowd[0]);
	UNTIL(p, crowd[0].connected && served[0].connected);
	end_connect(&crowd[1]);
	UNTIL(p, crowd[1].idle);
	check_refused(&crowd[1], XENIDC_REASON_LIMIT);
	/* One that needs little still fits. */
	crowd[2].options.budget.no_slots = true;
	crowd[2].options.budget.requests_out = crowd[2].options.budget.requests_in = 1;
	end_connect(&crowd[2]);
	UNTIL(p, crowd[2].connected && served[1].connected);
	/* What was reserved is free again with its channel. */
	CHECK_EQ(xenidc_channel_close(crowd[0].channel, 0), 0);
	UNTIL(p, crowd[0].idle && served[0].idle);
	end_free(&served[0]);
	served[0].connected = 0;
	end_connect(&crowd[3]);
	UNTIL(p, crowd[3].connected);
	crowd_free(p);
}

/* The same answer from all three calls that take an address. */
static void check_address(struct pair *p, const char *address, int code)
{
	struct xenidc_error err = { 0 };
	xenidc_listener *listener = NULL;

	if (xenidc_address_check(address, &err) != code)
		check_failed(__FILE__, __LINE__, "\"%.80s\": %d (%s), not %d", address, err.code, err.text, code);
	CHECK_EQ(err.code, code);
	CHECK(err.reason == XENIDC_REASON_ADDRESS || err.reason == XENIDC_REASON_UNSUPPORTED);
	CHECK(!err.by_peer);
	for (const char *c = err.text; *c; c++)
		CHECK(*c >= ' ' && *c <= '~');
	CHECK_OP(strlen(err.text), >=, 20);
	err = (struct xenidc_error){ 0 };
	CHECK_EQ(xenidc_channel_connect(p->client.channel, address, &err), code);
	CHECK_EQ(err.code, code);
	CHECK_OP(strlen(err.text), >=, 20);
	CHECK_EQ(xenidc_channel_state(p->client.channel), XENIDC_IDLE);
	err = (struct xenidc_error){ 0 };
	CHECK_EQ(xenidc_listener_new(p->server.loop, address, &p->listening, &listener, &err), code);
	CHECK_EQ(err.code, code);
	CHECK(!listener);
	CHECK_EQ(xenidc_address_check(address, NULL), code);
}

void case_address_scheme(struct pair *p)
{
	struct xenidc_error err = { 0 };

	pair_loops(p);
	end_new(&p->client);
	check_address(p, "carrier-pigeon:coo", -EPROTONOSUPPORT);
	check_address(p, "SHM:x", -EPROTONOSUPPORT);
	check_address(p, "", -EINVAL);
	check_address(p, "no-colon", -EINVAL);
	check_address(p, ":x", -EPROTONOSUPPORT);
	CHECK_EQ(xenidc_address_check("carrier-pigeon:coo", &err), -EPROTONOSUPPORT);
	/* What was tried, and what there is. */
	CHECK_HAS(err.text, "carrier-pigeon");
	CHECK_HAS(err.text, "shm");
	CHECK_HAS(err.text, "tcp");
	CHECK_EQ(xenidc_address_check(p->address, &err), 0);
}

void case_address_form(struct pair *p)
{
	char address[2 * XENIDC_ADDRESS_MAX], scheme[32];
	static const char *const shm[] = { "", ".", ".hidden", "..", "../x", "a/b", "a b", "a:b", "\xc3\xa4", NULL };
	static const char *const tcp[] = { "host:", "host:0x1", "host:65536", "host:-1", "[::1", "[::1]x",
					   "[::g]", "a b",      "host:1/ ",   "::1",     NULL };
	const char *const *bad = p->column->has & NEED_PATH ? shm : p->column->has & NEED_HOST ? tcp : NULL;

	snprintf(scheme, sizeof(scheme), "%s:", p->column->scheme);
	pair_loops(p);
	end_new(&p->client);
	for (; bad && *bad; bad++) {
		snprintf(address, sizeof(address), "%s%s", scheme, *bad);
		check_address(p, address, -EINVAL);
	}
	memset(address, 'x', sizeof(address));
	memcpy(address, scheme, strlen(scheme));
	address[sizeof(address) - 1] = 0;
	check_address(p, address, -ENAMETOOLONG);
	if (p->column->has & NEED_PATH) {
		address[strlen(scheme) + 65] = 0;
		check_address(p, address, -ENAMETOOLONG);
		address[strlen(scheme) + 64] = 0;
		CHECK_EQ(xenidc_address_check(address, NULL), 0);
	}
	if (p->column->has & NEED_HOST) {
		snprintf(address, sizeof(address), "tcp:host:1/%065d", 0);
		check_address(p, address, -ENAMETOOLONG);
		CHECK_EQ(xenidc_address_check("tcp:host:1/service", NULL), 0);
		CHECK_EQ(xenidc_address_check("tcp:[::1]:65535/s", NULL), 0);
		CHECK_EQ(xenidc_address_check("tcp:host", NULL), 0);
	}
}

void case_address_host(struct pair *p)
{
	struct xenidc_error err = { 0 };
	xenidc_listener *listener;
	int e;

	pair_loops(p);
	end_new(&p->client);
	/* RFC 6761: no name below .invalid exists. */
	e = xenidc_channel_connect(p->client.channel, "tcp:no-such-host.invalid", &err);
	if (e == 0) {
		UNTIL(p, p->client.idle);
		err = p->client.idle_why;
	}
	CHECK(err.reason == XENIDC_REASON_UNREACHABLE || err.reason == XENIDC_REASON_ADDRESS);
	CHECK_HAS(err.text, "no-such-host.invalid");
	CHECK_OP(err.code, <, 0);
	/* RFC 5737: for documentation only, so no address of ours. */
	e = xenidc_listener_new(p->server.loop, "tcp:192.0.2.1:4711", &p->listening, &listener, &err);
	CHECK_EQ(e, -EADDRNOTAVAIL);
	CHECK_HAS(err.text, "192.0.2.1");
}

/* Listen at this host, at a port that nobody has there. False: a machine without that family. */
static bool listen_at(struct pair *p, const char *host)
{
	struct xenidc_error err;
	int e = -EADDRINUSE;

	for (int i = 0; i < 50 && e == -EADDRINUSE; i++) {
		char address[XENIDC_ADDRESS_MAX];
		column_address(p->column, p->address);
		snprintf(address, sizeof(address), "tcp:%s:%s", host, strrchr(p->address, ':') + 1);
		e = xenidc_listener_new(p->server.loop, address, &p->listening, &p->listener, &err);
	}
	if (e)
		printf("%s: %s\n", host, err.text);
	return e == 0;
}

/* localhost may be ::1 and 127.0.0.1 (the hosts file says): a listener at either of them is found. */
void case_host_name(struct pair *p)
{
	static const char *const hosts[] = { "127.0.0.1", "[::1]" };
	unsigned found = 0;

	pair_allow(p);
	pair_loops(p);
	for (unsigned i = 0; i < 2; i++) {
		char address[XENIDC_ADDRESS_MAX];
		if (!listen_at(p, hosts[i]))
			continue;
		snprintf(address, sizeof(address), "tcp:localhost:%s", strrchr(p->address, ':') + 1);
		end_new(&p->client);
		CHECK_EQ(xenidc_channel_connect(p->client.channel, address, NULL), 0);
		UNTIL(p, p->client.idle || (p->client.connected && p->server.connected));
		found += p->client.connected;
		if (!p->client.connected)
			printf("%s: %s\n", hosts[i], p->client.idle_why.text);
		pair_close(p);
		end_free(&p->client);
		end_free(&p->server);
		p->client.idle = p->server.idle = p->client.connected = p->server.connected = 0;
		xenidc_listener_free(p->listener);
		p->listener = NULL;
	}
	CHECK_OP(found, >=, 1);
}

/* A listener in a process of its own is killed: its socket file stays. */
void case_stale_socket(struct pair *p)
{
	struct xenidc_error err = { 0 };
	xenidc_listener *second;

	pair_open_apart(p);
	pair_allow(p);
	CHECK_EQ(xenidc_listener_new(p->client.loop, p->address, &p->listening, &second, &err), -EADDRINUSE);
	pair_kill(p);
	UNTIL(p, p->client.idle);
	end_free(&p->client);
	CHECK_EQ(xenidc_listener_new(p->client.loop, p->address, &p->listening, &second, &err), 0);
	p->client.connected = 0;
	end_connect(&p->client);
	UNTIL(p, p->client.connected);
	CHECK_EQ(xenidc_channel_close(p->client.channel, 0), 0);
	UNTIL(p, p->client.idle > 1);
	xenidc_listener_free(second);
}

/* As another user, or with the folder closed if there is no other user for us. Runs in a child. */
static void connect_without_permission(struct pair *p)
{
	struct xenidc_error err = { 0 };
	int e;

	if (geteuid() == 0)
		CHECK_EQ(setresuid(65534, 65534, 65534), 0);
	column_loop(p->column, &p->client);
	p->is_server = true; /* no loop of the other end here */
	end_new(&p->client);
	e = xenidc_channel_connect(p->client.channel, p->address, &err);
	if (e == 0) {
		UNTIL(p, p->client.idle);
		err = p->client.idle_why;
	}
	CHECK_REASON(err.reason, XENIDC_REASON_PERMISSION);
	CHECK_OP(err.code, <, 0);
	CHECK_HAS(err.text, "shm:");
	_exit(0);
}

void case_permission(struct pair *p)
{
	const char *folder = getenv("XDG_RUNTIME_DIR");
	pid_t pid;

	/* The socket stands in a folder of ours, which others may not enter. */
	CHECK_EQ(chmod(folder, geteuid() == 0 ? 0700 : 0), 0);
	pid = check_fork();
	if (pid == 0)
		connect_without_permission(p);
	CHECK_EQ(check_wait(pid), 0);
	CHECK_EQ(chmod(folder, 0700), 0);
}

static void check_budget(struct pair *p, const struct xenidc_budget *budget, const char *word)
{
	struct xenidc_error err = { 0 };
	xenidc_channel *channel = NULL;
	xenidc_listener *listener = NULL;

	p->client.options.budget = *budget;
	CHECK_EQ(xenidc_channel_new(p->client.loop, &p->client.options, &channel, &err), -E2BIG);
	CHECK(!channel);
	CHECK_REASON(err.reason, XENIDC_REASON_LIMIT);
	CHECK_EQ(err.code, -E2BIG);
	CHECK_HAS(err.text, word);
	p->listening.channel = p->client.options;
	CHECK_EQ(xenidc_listener_new(p->server.loop, p->address, &p->listening, &listener, &err), -E2BIG);
	CHECK(!listener);
	CHECK_HAS(err.text, word);
}

void case_budget_limits(struct pair *p)
{
	struct xenidc_budget budget = { .requests_out = 5000 };

	pair_loops(p);
	check_budget(p, &budget, "requests_out");
	check_budget(p, &budget, "4096");
	budget = (struct xenidc_budget){ .messages_in = 4097 };
	check_budget(p, &budget, "messages_in");
	budget = (struct xenidc_budget){ .payload = 16385 };
	check_budget(p, &budget, "payload");
	budget = (struct xenidc_budget){ .refs = 65 };
	check_budget(p, &budget, "refs");
	budget = (struct xenidc_budget){ .out = { { (16u << 20) + 1, 1 } } };
	check_budget(p, &budget, "out");
	budget = (struct xenidc_budget){ .peer_in = { { 16u << 20, 100 } } };
	check_budget(p, &budget, "slot");
	/* At the limits themselves it can be made. */
	p->client.options.budget = (struct xenidc_budget){ .requests_out = 4096, .payload = 16384, .refs = 64 };
	end_new(&p->client);
}
