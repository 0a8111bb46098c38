/* SPDX-License-Identifier: MIT */
/* How both ends are run, and how time passes. */
#define _GNU_SOURCE
#include "harness.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/world.h"

#define WAIT_SECONDS 10
#define WAIT_SIMULATED_SECONDS 600

uint64_t pair_now(struct pair *p)
{
	return p->column->simulated ? sim_now() : check_now();
}

uint64_t pair_time(const struct pair *p, uint64_t ns)
{
	return p->column->simulated ? ns : ns * check_factor();
}

/* What the server's process has said since, if it is one. */
static bool hear_server(struct pair *p)
{
	unsigned before = p->heard_count;
	struct pollfd fd = { .fd = p->to_client, .events = POLLIN };
	char what;

	while (p->process && poll(&fd, 1, 0) > 0 && (fd.revents & POLLIN)) {
		CHECK_EQ(read(p->to_client, &what, 1), 1);
		CHECK_OP(p->heard_count, <, sizeof(p->heard));
		p->heard[p->heard_count++] = what;
	}
	return p->heard_count > before;
}

static unsigned step_end(struct end *end)
{
	int n;

	if (!end->loop || end->frozen)
		return 0;
	n = xenidc_loop_step(end->loop, 0);
	CHECK_OP(n, >=, 0);
	return (unsigned)n;
}

bool pair_step(struct pair *p)
{
	bool moved = relay_pump(p);

	if (p->column->simulated)
		return sim_step() > 0;
	moved = hear_server(p) || moved;
	moved = step_end(&p->server) > 0 || moved;
	return step_end(&p->client) > 0 || moved;
}

/* Add a loop to what is waited for. False: it has something to do already. */
static bool arm(struct end *end, struct pollfd *fds, unsigned *count, int64_t *timeout_ns)
{
	int64_t ns;

	if (!end->loop || end->frozen)
		return true;
	if (xenidc_loop_arm(end->loop, &ns) == XENIDC_BUSY)
		return false;
	if (ns >= 0 && ns < *timeout_ns)
		*timeout_ns = ns;
	fds[(*count)++] = (struct pollfd){ .fd = xenidc_loop_fd(end->loop), .events = POLLIN };
	return true;
}

/* Nothing is ready: wait as a program with a loop of its own would, for at most `most_ns`. */
static void sleep_in_poll(struct pair *p, int64_t most_ns)
{
	struct pollfd fds[6];
	unsigned count = 0;
	struct timespec timeout;
	int n;

	if (!arm(&p->server, fds, &count, &most_ns) || !arm(&p->client, fds, &count, &most_ns))
		return;
	count += relay_fds(p, &fds[count]);
	if (p->process)
		fds[count++] = (struct pollfd){ .fd = p->to_client, .events = POLLIN };
	timeout = (struct timespec){ .tv_sec = most_ns / (int64_t)SECOND, .tv_nsec = most_ns % (int64_t)SECOND };
	n = ppoll(fds, count, &timeout, NULL);
	CHECK(n >= 0 || errno == EINTR);
	/* The server's process has ended: its pipe would be readable from now on. */
	if (p->process && n > 0 && (fds[count - 1].revents & POLLHUP) && !(fds[count - 1].revents & POLLIN))
		usleep(100);
}

struct wait wait_begin(struct pair *p)
{
	uint64_t ns = p->column->simulated ? WAIT_SIMULATED_SECONDS * SECOND : WAIT_SECONDS * SECOND * check_factor();

	return (struct wait){ .pair = p, .until = pair_now(p) + ns };
}

static void give_up(const struct end *end)
{
	printf("%s: %s, connected %u, idle %u (%s: %s), requests %u, held %u, cancels %u, messages %u, writable %u, "
	       "abandoned %u, disconnecting %u (%s: %s), open %u\n",
	       end->name, end->channel ? xenidc_state_name(xenidc_channel_state(end->channel)) : "no channel",
	       end->connected, end->idle, xenidc_reason_name(end->idle_why.reason), end->idle_why.text, end->requests,
	       end->held_count, end->cancels, end->messages, end->writable, end->abandoned, end->disconnecting,
	       xenidc_reason_name(end->why.reason), end->why.text, end->open);
}

void wait_step(struct wait *w, const char *file, int line, const char *condition)
{
	struct pair *p = w->pair;
	uint64_t now = pair_now(p);
	bool over = now >= w->until;

	if (!over && pair_step(p))
		return;
	if (!over && p->column->simulated)
		over = !sim_advance();
	else if (!over)
		sleep_in_poll(p, (int64_t)(w->until - now));
	if (!over)
		return;
	alloc_forbid(false);
	give_up(&p->server);
	give_up(&p->client);
	check_failed(file, line, "waited in vain for: %s", condition);
}

void pair_pass(struct pair *p, uint64_t ns)
{
	uint64_t until = pair_now(p) + ns, now;

	if (p->column->simulated) {
		sim_pass(ns);
		return;
	}
	while ((now = pair_now(p)) < until)
		if (!pair_step(p))
			sleep_in_poll(p, (int64_t)(until - now));
}

void pair_suspend(struct pair *p, uint64_t ns)
{
	struct timespec t = { .tv_sec = (time_t)(ns / SECOND), .tv_nsec = (long)(ns % SECOND) };

	if (p->column->simulated)
		sim_jump(ns);
	else
		CHECK_EQ(nanosleep(&t, NULL), 0);
}
