/* SPDX-License-Identifier: MIT */
/*
 * Channels over shm on a machine that says no: each OS call of a whole connect, exchange and close fails once, at each
 * place where it is made. Whatever comes of it is told, nothing is left, and the next try goes well. And: what a forked
 * child may do, and descriptors.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <xenidc/xenidc.h>

#include "tests/lib/check.h"
#include "tests/lib/fault_os.h"
#include "xenidc-core/base/counters.h"
#include "xenidc-core/base/os.h"
#include "xenidc-core/base/times.h"

static char address[64];

struct end {
	xenidc_loop *loop;
	xenidc_listener *listener;
	xenidc_channel *channel;
	unsigned connected, idle, done, served_idle;
	enum xenidc_end ended;
	struct xenidc_error why;
};

static void nothing_left(void)
{
	for (int i = 0; i < XI_OBJECT_KINDS; i++)
		if (xi_alive((enum xi_object)i))
			check_failed(__FILE__, __LINE__, "%s left: %jd", xi_object_name((enum xi_object)i),
				     (intmax_t)xi_alive((enum xi_object)i));
}

static void on_request(xenidc_channel *channel, xenidc_incoming request)
{
	struct xenidc_reply reply = { .status = 0 };
	void *data;
	uint32_t length;

	CHECK_EQ(xenidc_view(channel, request, 0, &data, &length), 0);
	CHECK_EQ(memcmp(data, "data", 4), 0);
	CHECK_EQ(xenidc_reply(channel, request, &reply), 0);
}

static void on_served_idle(xenidc_channel *channel, const struct xenidc_error *why)
{
	struct end *e = xenidc_channel_user(channel);

	CHECK(why->reason != XENIDC_REASON_NONE);
	e->served_idle++;
}

static void on_connected(xenidc_channel *channel, const struct xenidc_limits *limits)
{
	struct end *e = xenidc_channel_user(channel);

	CHECK(limits->incarnation > 0);
	e->connected++;
}

static void on_idle(xenidc_channel *channel, const struct xenidc_error *why)
{
	struct end *e = xenidc_channel_user(channel);

	CHECK(why->reason != XENIDC_REASON_NONE && why->text[0]);
	e->why = *why;
	e->idle++;
}

static void on_done(xenidc_channel *channel, const struct xenidc_result *result)
{
	struct end *e = xenidc_channel_user(channel);

	e->ended = result->end;
	e->done++;
}

static struct xenidc_channel_options options(struct end *e)
{
	struct xenidc_channel_options o = { .size = sizeof(o), .user = e };

	o.budget.size = sizeof(o.budget);
	o.budget.requests_out = o.budget.requests_in = 2;
	o.budget.messages_out = o.budget.messages_in = 2;
	o.times.connect_ns = o.times.close_ns = 300 * XI_MS * check_factor();
	return o;
}

static int begin(struct end *e, struct xenidc_error *err)
{
	struct xenidc_loop_options lo = { .size = sizeof(lo), .wait = XENIDC_WAIT_BLOCK };
	struct xenidc_listener_options o = { .size = sizeof(o), .channel = options(e) };
	struct xenidc_channel_options c = options(e);
	int r = xenidc_loop_new(&lo, &e->loop);

	if (r)
		return r;
	o.channel.handlers.request = on_request;
	o.channel.handlers.idle = on_served_idle;
	r = xenidc_listener_new(e->loop, address, &o, &e->listener, err);
	if (r)
		return r;
	c.handlers.connected = on_connected;
	c.handlers.idle = on_idle;
	r = xenidc_channel_new(e->loop, &c, &e->channel, err);
	return r ? r : xenidc_channel_connect(e->channel, address, err);
}

static void step(struct end *e)
{
	int r = xenidc_loop_step(e->loop, (int64_t)(10 * XI_SECOND * check_factor()));

	CHECK_OP(r, >, 0);
}

static void exchange(struct end *e)
{
	struct xenidc_buffer buffer;
	struct xenidc_ref ref = { .length = 4 };
	struct xenidc_request request = { .refs = &ref, .ref_count = 1, .done = on_done };

	CHECK_EQ(xenidc_buffer_get(e->channel, XENIDC_OUT, 4, &buffer), 0);
	memcpy(buffer.data, "data", 4);
	ref.buffer = buffer;
	CHECK_EQ(xenidc_submit(e->channel, &request, NULL), 0);
	while (!e->done)
		step(e);
	CHECK_EQ(xenidc_channel_close(e->channel, XI_SECOND), e->idle ? -EALREADY : 0);
	while (!e->idle)
		step(e);
}

/* All of it. True: as if nothing had happened. */
static bool whole_life(void)
{
	struct end e = { .loop = NULL };
	struct xenidc_error err = { 0 };
	int r = begin(&e, &err);

	CHECK(r <= 0);
	if (r == 0) {
		while (!e.connected && !e.idle)
			step(&e);
		if (!e.idle)
			exchange(&e);
	} else {
		CHECK(!e.loop || err.text[0]);
	}
	fault_os_pause(true);
	xenidc_channel_free(e.channel);
	xenidc_listener_free(e.listener);
	if (e.loop)
		xenidc_loop_free(e.loop);
	fault_os_pause(false);
	nothing_left();
	return r == 0 && e.connected && e.ended == XENIDC_REPLIED && e.why.reason == XENIDC_REASON_CLOSED;
}

static void test_each_call_fails(void)
{
	static const char *const calls[] = { NULL,        "alloc",     "mmap",       "munmap", "memfd_create",
					     "ftruncate", "fcntl",     "fallocate",  "fstat",  "fstat_size",
					     "socket",    "bind",      "listen",     "accept", "connect",
					     "shutdown",  "sendmsg",   "recvmsg",    "poll",   "getsockopt",
					     "close",     "epoll_ctl", "pidfd_open", "mkdir",  "unlink",
					     "open",      "flock",     "futex_wake" };
	unsigned failures = 0, survived = 0;

	snprintf(address, sizeof(address), "shm:faults-%d", getpid());
	fault_os_install();
	CHECK(whole_life());
	for (unsigned i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		for (unsigned k = 0;; k++) {
			bool good;
			fault_os_set((struct fault){ .call = calls[i], .countdown = k, .repeat = 1 });
			good = whole_life();
			if (!fault_os_fired())
				break;
			failures++;
			survived += good;
			fault_os_clear();
			CHECK(whole_life());
		}
	}
	CHECK_OP(failures, >, 50);
	CHECK_OP(survived, <, failures);
	fault_os_remove();
}

/* --- Descriptors */

/* Descriptors that are open; all of them must be closed by an exec. */
static unsigned descriptors(bool all_cloexec)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *at;
	unsigned n = 0;

	CHECK(dir);
	while ((at = readdir(dir))) {
		int fd = atoi(at->d_name);
		if (at->d_name[0] == '.' || fd == dirfd(dir))
			continue;
		n++;
		if (all_cloexec && fd > 2)
			CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	}
	closedir(dir);
	return n;
}

static void test_descriptors(void)
{
	unsigned before;
	struct end e = { .loop = NULL };
	struct xenidc_error err = { 0 };

	snprintf(address, sizeof(address), "shm:fds-%d", getpid());
	CHECK_EQ(close_range(3, ~0u, 0), 0); /* what the test itself inherited */
	before = descriptors(false);
	CHECK_EQ(begin(&e, &err), 0);
	while (!e.connected)
		step(&e);
	for (int i = 0; i < 3; i++)
		xenidc_loop_step(e.loop, 0);
	/* A loop has two, a listener two, each end of a channel two. */
	CHECK_EQ(descriptors(true), before + 8);
	exchange(&e);
	/* Whoever closes first keeps its link until the other has let go of its memory, too. */
	while (!e.served_idle || xi_alive(XI_OBJECT_QUARANTINE))
		step(&e);
	CHECK_EQ(descriptors(true), before + 4);
	xenidc_channel_free(e.channel);
	xenidc_listener_free(e.listener);
	xenidc_loop_free(e.loop);
	CHECK_EQ(descriptors(true), before);
	nothing_left();
}

/* No descriptor is left to accept with: nothing spins, and once there are some again, it goes on. */
static void test_no_descriptor_to_accept(void)
{
	struct end e = { .loop = NULL };
	struct xenidc_error err = { 0 };
	unsigned steps = 0;

	snprintf(address, sizeof(address), "shm:accept-%d", getpid());
	fault_os_install();
	CHECK_EQ(begin(&e, &err), 0);
	fault_os_set((struct fault){ .call = "accept" });
	for (uint64_t start = check_now(); check_now() - start < 150 * XI_MS; steps++)
		xenidc_loop_step(e.loop, (int64_t)(10 * XI_MS));
	CHECK_OP(steps, <, 100);
	fault_os_clear();
	while (!e.connected && !e.idle)
		step(&e);
	CHECK(e.connected);
	exchange(&e);
	xenidc_channel_free(e.channel);
	xenidc_listener_free(e.listener);
	xenidc_loop_free(e.loop);
	fault_os_remove();
	nothing_left();
}

/* --- fork */

/* The child frees what it inherited; the parent's channel, its memory and its socket do not notice. */
static void test_fork(void)
{
	struct end e = { .loop = NULL };
	struct xenidc_error err = { 0 };
	pid_t pid;

	snprintf(address, sizeof(address), "shm:fork-%d", getpid());
	CHECK_EQ(begin(&e, &err), 0);
	while (!e.connected)
		step(&e);
	pid = check_fork();
	if (pid == 0) {
		CHECK_EQ(xenidc_loop_step(e.loop, 0), -ECHILD);
		xenidc_loop_free(e.loop);
		nothing_left();
		_exit(0);
	}
	CHECK_EQ(check_wait(pid), 0);
	for (int i = 0; i < 20; i++)
		xenidc_loop_step(e.loop, 0);
	CHECK_EQ(e.idle + e.served_idle, 0);
	exchange(&e);
	CHECK_EQ(e.ended, XENIDC_REPLIED);
	e.connected = e.idle = 0;
	CHECK_EQ(xenidc_channel_connect(e.channel, address, &err), 0);
	while (!e.connected)
		step(&e);
	xenidc_loop_free(e.loop);
	nothing_left();
}

CHECK_MAIN(TEST(test_each_call_fails), TEST(test_descriptors), TEST(test_no_descriptor_to_accept), TEST(test_fork))
