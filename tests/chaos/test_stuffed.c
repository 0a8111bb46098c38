/* SPDX-License-Identifier: MIT */
/*
 * A peer that is stopped, then killed, with more requests on their way than a kernel holds for it. What never left this
 * process is known not to be executed (tcp); what its handler had not seen is, too, once the kernel says that it is
 * dead and its dispatch index is final (shm).
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proc.h"

#define REQUESTS 512u
#define PAYLOAD 16384u
/* The most that two sockets on one machine hold: 4 MiB to send, and the receiver has not read since it was stopped. */
#define KERNEL_HOLDS (6u << 20)

static struct {
	xenidc_loop *loop;
	xenidc_channel *channel;
	struct journal *journal;
	char journal_name[32];
	uint8_t ends[REQUESTS + 1];
	enum xenidc_reason reasons[REQUESTS + 1];
	uint32_t ended;
	bool connected, idle;
	struct xenidc_error why;
	uint8_t payload[PAYLOAD];
} t;

static void budget(struct xenidc_budget *b)
{
	*b = (struct xenidc_budget){ .size = sizeof(*b), .payload = PAYLOAD, .no_slots = true };
	b->requests_out = b->requests_in = REQUESTS;
	b->messages_out = b->messages_in = 1;
}

/* --- The process that is killed: executes, answers nothing */

static void take(xenidc_channel *channel, xenidc_incoming request)
{
	const void *payload;
	uint32_t length, number;

	CHECK_EQ(xenidc_incoming_payload(channel, request, &payload, &length), 0);
	CHECK_EQ(length, PAYLOAD);
	memcpy(&number, payload, sizeof(number));
	t.journal->dispatched[number]++;
	t.journal->held++;
	/* Slow, so that most still wait to be dispatched when the end comes. */
	usleep(200);
}

static void serve(const char *address, const char *journal)
{
	struct xenidc_listener_options options = { .size = sizeof(options) };
	xenidc_listener *listener;
	struct xenidc_error err;

	t.journal = journal_open(journal);
	options.channel.size = sizeof(options.channel);
	options.channel.handlers.request = take;
	budget(&options.channel.budget);
	CHECK_EQ(xenidc_loop_new(NULL, &t.loop), 0);
	if (xenidc_listener_new(t.loop, address, &options, &listener, &err))
		check_failed(__FILE__, __LINE__, "%s", err.text);
	snprintf(t.journal->address, sizeof(t.journal->address), "%s", xenidc_listener_address(listener));
	t.journal->listening = 1;
	CHECK_EQ(xenidc_loop_run(t.loop), 0);
	exit(0);
}

/* --- The side that survives */

static void done(xenidc_channel *channel, const struct xenidc_result *result)
{
	uint32_t number = (uint32_t)(uintptr_t)result->user;

	(void)channel;
	CHECK(number >= 1 && number <= REQUESTS && !t.ends[number]);
	t.ends[number] = (uint8_t)result->end;
	t.reasons[number] = result->reason;
	t.ended++;
}

static void connected(xenidc_channel *channel, const struct xenidc_limits *limits)
{
	(void)channel;
	CHECK_EQ(limits->budget.requests_out, REQUESTS);
	CHECK_EQ(limits->budget.payload, PAYLOAD);
	t.connected = true;
}

static void idle(xenidc_channel *channel, const struct xenidc_error *why)
{
	(void)channel;
	t.why = *why;
	t.idle = true;
}

static bool is_listening(void *arg)
{
	(void)arg;
	return t.journal->listening;
}

static bool is_connected(void *arg)
{
	(void)arg;
	if (t.idle)
		check_failed(__FILE__, __LINE__, "the connect failed: %s", t.why.text);
	return t.connected;
}

static bool is_idle(void *arg)
{
	(void)arg;
	return t.idle;
}

static bool has_ended(void *arg)
{
	return t.ends[*(uint32_t *)arg] != 0;
}

static void submit(uint32_t number, uint64_t timeout_ns)
{
	struct xenidc_request request = {
		.payload = t.payload,
		.payload_len = PAYLOAD,
		.timeout_ns = timeout_ns,
		.done = done,
		.user = (void *)(uintptr_t)number,
	};

	memcpy(t.payload, &number, sizeof(number));
	CHECK_EQ(xenidc_submit(t.channel, &request, NULL), 0);
}

static pid_t begin(const char *address)
{
	struct xenidc_channel_options options = { .size = sizeof(options),
						  .handlers = { .connected = connected, .idle = idle } };
	const char *argv[] = { NULL, "server", address, NULL, NULL };
	struct xenidc_error err;
	pid_t pid;

	memset(&t, 0, sizeof(t));
	t.journal = journal_new(t.journal_name);
	argv[3] = t.journal_name;
	CHECK_EQ(xenidc_loop_new(NULL, &t.loop), 0);
	pid = proc_start(argv, NULL);
	CHECK(pump_until(t.loop, is_listening, NULL, 5000));
	budget(&options.budget);
	if (xenidc_channel_new(t.loop, &options, &t.channel, &err) ||
	    xenidc_channel_connect(t.channel, t.journal->address, &err))
		check_failed(__FILE__, __LINE__, "%s", err.text);
	CHECK(pump_until(t.loop, is_connected, NULL, 5000));
	return pid;
}

static bool some_are_held(void *arg)
{
	(void)arg;
	return t.journal->held >= 10;
}

/* Until nothing moves any more: what the kernels hold, they hold. */
static void let_it_jam(void)
{
	for (int i = 0; i < 100; i++)
		xenidc_loop_step(t.loop, 1000000);
}

static void end_of(pid_t pid)
{
	CHECK(WIFSIGNALED(proc_kill(pid)));
	CHECK(pump_until(t.loop, is_idle, NULL, 1000));
	CHECK_EQ(t.ended, REQUESTS);
}

static void finish(void)
{
	xenidc_channel_free(t.channel);
	xenidc_loop_free(t.loop);
	journal_close(t.journal);
}

static void print_counts(const char *what)
{
	unsigned counts[4] = { 0 }, executed = 0;

	for (uint32_t n = 1; n <= REQUESTS; n++) {
		counts[t.ends[n]]++;
		executed += t.journal->dispatched[n];
	}
	printf("%s: of %u requests %u executed; %u NOT_EXECUTED, %u UNKNOWN\n", what, REQUESTS, executed, counts[2],
	       counts[3]);
}

static void check_not_executed(uint32_t number)
{
	if (t.ends[number] != XENIDC_NOT_EXECUTED)
		check_failed(__FILE__, __LINE__, "request %u of %u ended as %u, reason %s", number, REQUESTS,
			     t.ends[number], xenidc_reason_name(t.reasons[number]));
}

/* tcp: all that the kernels cannot have taken is known not to be executed. */
static void test_bytes_that_never_left(void)
{
	uint32_t last = REQUESTS, left = KERNEL_HOLDS / PAYLOAD;
	pid_t pid = begin("tcp:127.0.0.1:0");

	CHECK_EQ(kill(pid, SIGSTOP), 0);
	for (uint32_t n = 1; n < REQUESTS; n++)
		submit(n, 0);
	let_it_jam();
	CHECK_EQ(t.ended, 0);
	/* A deadline that passes: taken back, and known. */
	submit(last, 5000000);
	CHECK(pump_until(t.loop, has_ended, &last, 1000));
	CHECK_EQ(t.ends[last], XENIDC_NOT_EXECUTED);
	end_of(pid);
	CHECK(t.why.reason == XENIDC_REASON_LOST || t.why.reason == XENIDC_REASON_PEER_DIED);
	print_counts("tcp");
	for (uint32_t n = 1; n <= REQUESTS; n++) {
		CHECK(t.ends[n] == XENIDC_UNKNOWN || t.ends[n] == XENIDC_NOT_EXECUTED);
		CHECK(!t.journal->dispatched[n] || t.ends[n] == XENIDC_UNKNOWN);
		/* In order: nothing can have left behind something that has not. */
		if (n > left || (n > 1 && t.ends[n - 1] == XENIDC_NOT_EXECUTED))
			check_not_executed(n);
	}
	/* The socket buffers are never that small: some had left, and nobody can know about those. */
	CHECK_EQ(t.ends[1], XENIDC_UNKNOWN);
	finish();
}

/* shm: everything has left at once, but the dispatch index tells. */
static void test_dispatch_index_of_the_dead(void)
{
	char address[64];
	unsigned executed = 0;
	pid_t pid;

	snprintf(address, sizeof(address), "shm:stuffed-%d", (int)getpid());
	pid = begin(address);
	for (uint32_t n = 1; n <= REQUESTS; n++)
		submit(n, 0);
	CHECK(pump_until(t.loop, some_are_held, NULL, 5000));
	/* Stopped first: then it is at some place of the handler, or between two. */
	CHECK_EQ(kill(pid, SIGSTOP), 0);
	let_it_jam();
	CHECK_EQ(t.ended, 0);
	end_of(pid);
	CHECK_EQ(t.why.reason, XENIDC_REASON_PEER_DIED);
	print_counts("shm");
	for (uint32_t n = 1; n <= REQUESTS; n++) {
		executed += t.journal->dispatched[n];
		if (t.journal->dispatched[n])
			CHECK_EQ(t.ends[n], XENIDC_UNKNOWN);
		else if (n > executed + 1)
			check_not_executed(n);
	}
	CHECK(executed >= 10 && executed < REQUESTS - 10);
	finish();
}

/* --- A sender that dies in the middle of a frame: what it had sent of it is worth nothing */

static void stuff(xenidc_channel *channel, const struct xenidc_limits *limits)
{
	(void)limits;
	t.channel = channel;
	for (uint32_t n = 1; n <= REQUESTS; n++)
		submit(n, 0);
}

static void dial(const char *address)
{
	struct xenidc_channel_options options = { .size = sizeof(options), .handlers = { .connected = stuff } };
	struct xenidc_error err;

	budget(&options.budget);
	CHECK_EQ(xenidc_loop_new(NULL, &t.loop), 0);
	if (xenidc_channel_new(t.loop, &options, &t.channel, &err) || xenidc_channel_connect(t.channel, address, &err))
		check_failed(__FILE__, __LINE__, "%s", err.text);
	CHECK_EQ(xenidc_loop_run(t.loop), 0);
	exit(0);
}

static void count(xenidc_channel *channel, xenidc_incoming request)
{
	struct xenidc_reply reply = { 0 };
	const void *payload;
	uint32_t length, number;

	CHECK_EQ(xenidc_incoming_payload(channel, request, &payload, &length), 0);
	CHECK_EQ(length, PAYLOAD);
	memcpy(&number, payload, sizeof(number));
	CHECK_EQ(number, ++t.ended);
	CHECK_EQ(xenidc_reply(channel, request, &reply), 0);
}

static void accepted(xenidc_listener *listener, xenidc_channel *channel)
{
	(void)listener;
	t.channel = channel;
}

static void test_death_within_a_frame(void)
{
	struct xenidc_listener_options options = { .size = sizeof(options), .accepted = accepted };
	const char *argv[] = { NULL, "sender", NULL, NULL };
	xenidc_listener *listener;
	struct xenidc_error err;
	struct census before, after;
	int status = 0;
	pid_t pid;

	memset(&t, 0, sizeof(t));
	CHECK_EQ(xenidc_loop_new(NULL, &t.loop), 0);
	options.channel.size = sizeof(options.channel);
	options.channel.handlers.connected = connected;
	options.channel.handlers.request = count;
	options.channel.handlers.idle = idle;
	budget(&options.channel.budget);
	if (xenidc_listener_new(t.loop, "tcp:127.0.0.1:0", &options, &listener, &err))
		check_failed(__FILE__, __LINE__, "%s", err.text);
	census_take(&before);
	argv[2] = xenidc_listener_address(listener);
	pid = proc_start(argv, "stream_frame_cut:1:kill");
	CHECK(pump_until(t.loop, is_connected, NULL, 5000));
	/* Nothing is read until it has run into the end of the kernel's buffers, and so has died. */
	for (uint64_t end = check_now() + 5000000000u * (uint64_t)check_factor(); !proc_ended(pid, &status);) {
		CHECK(check_now() < end);
		usleep(1000);
	}
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	CHECK(pump_until(t.loop, is_idle, NULL, 1000));
	CHECK_EQ(t.why.reason, XENIDC_REASON_LOST);
	CHECK(t.ended > 0 && t.ended < REQUESTS);
	printf("tcp: %u whole requests of a sender that died in the middle of the next\n", t.ended);
	xenidc_channel_free(t.channel);
	CHECK_EQ(xenidc_loop_step(t.loop, 0), 0);
	census_take(&after);
	if (!census_equal(&before, &after)) {
		census_print("before", &before);
		census_print("after", &after);
		check_failed(__FILE__, __LINE__, "something is left of a dead sender");
	}
	xenidc_listener_free(listener);
	xenidc_loop_free(t.loop);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = { TEST(test_bytes_that_never_left),
						   TEST(test_dispatch_index_of_the_dead),
						   TEST(test_death_within_a_frame) };

	if (argc == 4 && !strcmp(argv[1], "server"))
		serve(argv[2], argv[3]);
	if (argc == 3 && !strcmp(argv[1], "sender"))
		dial(argv[2]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	return check_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}
