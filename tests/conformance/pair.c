/* SPDX-License-Identifier: MIT */
/* Two ends: how they are made, stepped and taken down, and what is checked then. */
#define _GNU_SOURCE
#include "harness.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/sim/world.h"
#include "xenidc-core/base/counters.h"

static int64_t objects_before[XI_OBJECT_KINDS];
static unsigned descriptors_before;

static unsigned descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	CHECK(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* From the connected of both ends to the idle of both. The simulated world has memory of its own for the library. */
static void forbid(struct pair *p, bool on)
{
	static bool forbidden;
	static uint64_t allocations;

	if (forbidden == on || (on && p->may_allocate))
		return;
	forbidden = on;
	alloc_forbid(on);
	if (on && p->column->simulated)
		allocations = sim_allocations();
	else if (p->column->simulated)
		CHECK_EQ(sim_allocations(), allocations);
}

void pair_allow(struct pair *p)
{
	forbid(p, false);
	p->may_allocate = true;
	p->live = 0;
}

/* --- Handlers: every one passes through here */
static struct end *enter(xenidc_channel *channel)
{
	struct end *end = xenidc_channel_user(channel);

	CHECK(end);
	CHECK_EQ(end->depth, 0);
	end->depth++;
	return end;
}

static void leave(struct end *end)
{
	CHECK_EQ(end->depth, 1);
	end->depth--;
}

static void on_connected(xenidc_channel *channel, const struct xenidc_limits *limits)
{
	struct end *end = enter(channel);

	end->connected++;
	end->limits = *limits;
	end->pair->live++;
	if (end->pair->live == (end->pair->process ? 1 : 2))
		forbid(end->pair, true);
	if (end->on.connected)
		end->on.connected(end);
	leave(end);
}

static void on_request(xenidc_channel *channel, xenidc_incoming request)
{
	struct end *end = enter(channel);

	CHECK(request);
	end->requests++;
	if (end->on.request) {
		end->on.request(end, request);
	} else {
		CHECK_OP(end->held_count, <, HELD_MAX);
		end->held[end->held_count++] = request;
	}
	leave(end);
}

static void on_cancel(xenidc_channel *channel, xenidc_incoming request)
{
	struct end *end = enter(channel);

	end->cancels++;
	if (end->on.cancel)
		end->on.cancel(end, request);
	leave(end);
}

static void on_message(xenidc_channel *channel, const void *payload, uint32_t length)
{
	struct end *end = enter(channel);

	if (length == sizeof(BARRIER) && !memcmp(payload, BARRIER, length)) {
		end->barrier++;
	} else {
		end->messages++;
		if (end->on.message)
			end->on.message(end, payload, length);
	}
	leave(end);
}

static void on_writable(xenidc_channel *channel)
{
	struct end *end = enter(channel);

	end->writable++;
	if (end->on.writable)
		end->on.writable(end);
	leave(end);
}

static void on_abandoned(xenidc_channel *channel, xenidc_incoming request)
{
	struct end *end = enter(channel);

	end->abandoned++;
	if (end->on.abandoned)
		end->on.abandoned(end, request);
	else
		answer(end, request, 0);
	leave(end);
}

static void on_stalled(xenidc_channel *channel, bool stalled)
{
	struct end *end = enter(channel);

	if (stalled)
		end->stalled++;
	else
		end->recovered++;
	leave(end);
}

static void on_disconnecting(xenidc_channel *channel, const struct xenidc_error *why)
{
	struct end *end = enter(channel);

	end->disconnecting++;
	end->why = *why;
	if (end->on.disconnecting)
		end->on.disconnecting(end);
	leave(end);
}

static void on_idle(xenidc_channel *channel, const struct xenidc_error *why)
{
	struct end *end = enter(channel);

	end->idle++;
	end->idle_why = *why;
	if (end->connected && end->pair->live)
		end->pair->live--;
	if (end->pair->live == 0 || end->options.retry.enabled)
		forbid(end->pair, false);
	if (end->on.idle)
		end->on.idle(end);
	leave(end);
}

static int on_accept(xenidc_listener *listener, const struct xenidc_peer *peer, struct xenidc_accept *accept)
{
	(void)listener;
	(void)peer;
	(void)accept;
	return 0;
}

static void on_accepted(xenidc_listener *listener, xenidc_channel *channel)
{
	struct pair *p = xenidc_listener_user(listener);

	if (p->accepted) {
		p->accepted(p, channel);
		return;
	}
	if (p->server.channel) {
		/* The one before may still be on its way to idle. */
		CHECK(xenidc_channel_state(p->server.channel) != XENIDC_CONNECTED);
		xenidc_channel_free(p->server.channel);
	}
	p->server.channel = channel;
}

/* --- Making */
void end_init(struct end *end, struct pair *p, const char *name, const struct end *like)
{
	struct sim_process *process = like ? like->process : NULL;
	xenidc_loop *loop = like ? like->loop : NULL;

	memset(end, 0, sizeof(*end));
	end->pair = p;
	end->name = name;
	end->loop = loop;
	end->process = process;
	end->options = (struct xenidc_channel_options){
		.size = sizeof(end->options),
		.user = end,
		.handlers = {
			.connected = on_connected,
			.request = on_request,
			.cancel = on_cancel,
			.message = on_message,
			.writable = on_writable,
			.abandoned = on_abandoned,
			.stalled = on_stalled,
			.disconnecting = on_disconnecting,
			.idle = on_idle,
		},
	};
}

void pair_init(struct pair *p, const struct column *column)
{
	memset(p, 0, sizeof(*p));
	p->column = column;
	end_init(&p->server, p, "server", NULL);
	end_init(&p->client, p, "client", NULL);
	p->listening.size = sizeof(p->listening);
	p->listening.accept = on_accept;
	p->listening.accepted = on_accepted;
	p->listening.user = p;
	p->listening.channel = p->server.options;
	column_address(column, p->address);
	for (int kind = 0; kind < XI_OBJECT_KINDS; kind++)
		objects_before[kind] = xi_alive((enum xi_object)kind);
	descriptors_before = descriptors();
}

static void made(int error, const struct xenidc_error *err, const char *what)
{
	if (error)
		check_failed(__FILE__, __LINE__, "%s: %d, %s: %s", what, error, xenidc_reason_name(err->reason),
			     err->text);
}

void pair_loops(struct pair *p)
{
	if (!p->server.loop && (!p->process || p->is_server))
		column_loop(p->column, &p->server);
	if (!p->client.loop && !p->is_server)
		column_loop(p->column, &p->client);
}

/* What is made from here on belongs to the end's process, which is only of interest in a simulated world. */
static struct sim_process *act_as(struct sim_process *process)
{
	return process ? sim_as(process) : NULL;
}

static void act_again(struct sim_process *now, struct sim_process *before)
{
	if (now)
		sim_as(before);
}

void pair_listen(struct pair *p)
{
	struct xenidc_error err = { 0 };
	struct sim_process *before;

	pair_loops(p);
	before = act_as(p->server.process);
	p->listening.channel = p->server.options;
	made(xenidc_listener_new(p->server.loop, p->address, &p->listening, &p->listener, &err), &err, p->address);
	act_again(p->server.process, before);
}

void end_new(struct end *end)
{
	struct xenidc_error err = { 0 };
	struct sim_process *before;

	pair_loops(end->pair);
	if (end != &end->pair->server && end != &end->pair->client && !end->loop)
		end->loop = end->pair->client.loop;
	before = act_as(end->process);
	made(xenidc_channel_new(end->loop, &end->options, &end->channel, &err), &err, "channel");
	act_again(end->process, before);
}

void end_connect(struct end *end)
{
	struct xenidc_error err = { 0 };
	struct sim_process *before;

	if (!end->channel)
		end_new(end);
	before = act_as(end->process);
	made(xenidc_channel_connect(end->channel, end->pair->address, &err), &err, end->pair->address);
	act_again(end->process, before);
}

void pair_open(struct pair *p)
{
	unsigned server = p->server.connected, client = p->client.connected;

	if (!p->listener && !p->process)
		pair_listen(p);
	end_connect(&p->client);
	UNTIL(p, p->client.connected > client && (p->process || p->server.connected > server));
}

/* --- The server as a process of its own */
struct commands {
	struct xenidc_watch watch;
	struct pair *pair;
};

static void command(struct xenidc_watch *watch, uint32_t events)
{
	struct pair *p = ((struct commands *)(void *)watch)->pair;
	char what;

	(void)events;
	/* The client's process has ended, or closed this one's pipe. */
	if (read(p->to_server, &what, 1) != 1)
		_exit(0);
	CHECK(p->told);
	p->told(p, what);
}

static void serve(struct pair *p)
{
	static struct commands commands;

	commands.pair = p;
	pair_listen(p);
	CHECK_EQ(xenidc_watch_start(p->server.loop, &commands.watch, p->to_server, POLLIN, command), 0);
	pair_say(p, '!');
	for (;;)
		CHECK_OP(xenidc_loop_step(p->server.loop, -1), >=, 0);
}

void pair_open_apart(struct pair *p)
{
	int down[2], up[2];

	if (!(p->column->has & NEED_KERNEL)) {
		pair_open(p);
		return;
	}
	CHECK(!p->server.loop && !p->client.loop);
	CHECK_EQ(pipe(down), 0);
	CHECK_EQ(pipe(up), 0);
	p->process = check_fork();
	p->is_server = p->process == 0;
	close(p->is_server ? up[0] : up[1]);
	close(p->is_server ? down[1] : down[0]);
	p->to_server = down[p->is_server ? 0 : 1];
	p->to_client = up[p->is_server ? 1 : 0];
	if (p->is_server) {
		p->process = getpid();
		serve(p);
	}
	pair_loops(p);
	UNTIL(p, pair_heard(p, '!'));
	pair_open(p);
}

void pair_tell(struct pair *p, char what)
{
	if (p->process)
		CHECK_EQ(write(p->to_server, &what, 1), 1);
	else
		p->told(p, what);
}

void pair_say(struct pair *p, char what)
{
	if (p->process) {
		CHECK_EQ(write(p->to_client, &what, 1), 1);
		return;
	}
	CHECK_OP(p->heard_count, <, sizeof(p->heard));
	p->heard[p->heard_count++] = what;
}

bool pair_heard(const struct pair *p, char what)
{
	return memchr(p->heard, what, p->heard_count);
}

/* --- The end */
void end_freeze(struct end *end, bool frozen)
{
	end->frozen = frozen;
	if (end->process)
		sim_pause(end->process, frozen);
}

void pair_stop(struct pair *p)
{
	int status;

	if (!p->process) {
		end_freeze(&p->server, true);
		return;
	}
	CHECK_EQ(kill(p->process, SIGSTOP), 0);
	CHECK_EQ(waitpid(p->process, &status, WUNTRACED), p->process);
	CHECK(WIFSTOPPED(status));
}

void pair_kill(struct pair *p)
{
	p->killed = true;
	if (p->process) {
		CHECK_EQ(kill(p->process, SIGKILL), 0);
		CHECK_EQ(check_wait(p->process), -SIGKILL);
		return;
	}
	sim_kill(p->server.process);
	p->server.loop = NULL;
	p->server.channel = NULL;
	p->server.open = 0;
	p->listener = NULL;
}

void end_free(struct end *end)
{
	end->dropped = end->dropped || end->open;
	xenidc_channel_free(end->channel);
	end->channel = NULL;
}

static void close_one(struct end *end)
{
	if (end->channel && xenidc_channel_state(end->channel) != XENIDC_IDLE)
		xenidc_channel_close(end->channel, SECOND);
}

static bool is_idle(const struct end *end)
{
	return !end->channel || xenidc_channel_state(end->channel) == XENIDC_IDLE;
}

void pair_close(struct pair *p)
{
	end_freeze(&p->server, false);
	end_freeze(&p->client, false);
	p->client.on = p->server.on = (struct hooks){ 0 };
	answer_held(&p->server, 0);
	answer_held(&p->client, 0);
	close_one(&p->client);
	UNTIL(p, is_idle(&p->client));
	close_one(&p->server);
	UNTIL(p, is_idle(&p->server));
}

static void check_objects(void)
{
	for (int kind = 0; kind < XI_OBJECT_KINDS; kind++) {
		int64_t now = xi_alive((enum xi_object)kind);
		if (now != objects_before[kind])
			check_failed(__FILE__, __LINE__, "%s: %lld objects alive, %lld before",
				     xi_object_name((enum xi_object)kind), (long long)now,
				     (long long)objects_before[kind]);
	}
}

static void take_down(struct pair *p)
{
	xenidc_channel_free(p->client.channel);
	xenidc_channel_free(p->server.channel);
	p->client.channel = p->server.channel = NULL;
	xenidc_listener_free(p->listener);
	p->listener = NULL;
	xenidc_loop_free(p->client.loop);
	xenidc_loop_free(p->server.loop);
	p->client.loop = p->server.loop = NULL;
}

void pair_end(struct pair *p)
{
	if (p->process && !p->killed) {
		pair_close(p);
		close(p->to_server);
		CHECK_EQ(check_wait(p->process), 0);
	} else {
		pair_close(p);
		if (p->process)
			close(p->to_server);
	}
	if (p->process)
		close(p->to_client);
	forbid(p, false);
	if (!p->client.dropped)
		CHECK_EQ(p->client.open, 0);
	if (!p->server.dropped)
		CHECK_EQ(p->server.open, 0);
	take_down(p);
	column_leave(p->column);
	check_objects();
	CHECK_EQ(descriptors(), descriptors_before);
}
