/* SPDX-License-Identifier: MIT */
/*
 * Taking back from a peer that is stopped while it holds what was lent: in time, without its help, and without harm to
 * it. What cannot be withdrawn stays in quarantine until it lets go.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bystander.h"
#include "proc.h"

#define MS 1000000u
#define T_CLOSE (300 * MS)
/* How much later than T_close idle may come. */
#define SLACK (100 * MS)
#define HELD 4u
#define LENGTH 40000u

/* --- The peer: holds whatever it is asked until it is abandoned */

static struct {
	xenidc_loop *loop;
	struct journal *journal;
	bool map;
	struct {
		xenidc_incoming request;
		void *view;
	} held[HELD];
	unsigned nheld;
} peer;

static bool all_are(const uint8_t *bytes, uint8_t value)
{
	for (uint32_t i = 0; i < LENGTH; i++)
		if (bytes[i] != value)
			return false;
	return true;
}

static void take(xenidc_channel *channel, xenidc_incoming request)
{
	uint32_t length;
	void *out, *in;

	CHECK_EQ(xenidc_view(channel, request, 0, &out, &length), 0);
	CHECK_EQ(length, LENGTH);
	CHECK(all_are(out, 0x55));
	CHECK_EQ(xenidc_view(channel, request, 1, &in, &length), 0);
	memset(in, 0xaa, length);
	/* Once it has been abandoned, new ones are answered at once. */
	if (peer.journal->command) {
		struct xenidc_reply reply = { .status = 7 };
		CHECK_EQ(xenidc_reply(channel, request, &reply), 0);
		return;
	}
	CHECK(peer.nheld < HELD);
	peer.held[peer.nheld].request = request;
	peer.held[peer.nheld++].view = out;
	peer.journal->held = peer.nheld;
}

static void abandoned(xenidc_channel *channel, xenidc_incoming request)
{
	struct xenidc_reply reply = { 0 };

	for (unsigned i = 0; i < peer.nheld; i++) {
		if (peer.held[i].request != request)
			continue;
		/* Reading it does no harm. Where it was the other side's own memory, it is zeros by now; what was
		 * copied is ours and stays. */
		CHECK(all_are(peer.held[i].view, peer.map ? 0 : 0x55));
		peer.held[i] = peer.held[--peer.nheld];
		peer.journal->held = peer.nheld;
		CHECK_EQ(xenidc_reply(channel, request, &reply), 0);
		return;
	}
	check_failed(__FILE__, __LINE__, "abandoned: what is not held");
}

static void connected(xenidc_channel *channel, const struct xenidc_limits *limits)
{
	(void)channel;
	CHECK_EQ(limits->map, peer.map);
	peer.journal->connects++;
}

static void disconnecting(xenidc_channel *channel, const struct xenidc_error *why)
{
	(void)channel;
	memcpy(peer.journal->text, why->text, sizeof(why->text));
	peer.journal->reason = why->reason;
	peer.journal->by_peer = why->by_peer;
	peer.journal->disconnects++;
}

static void peer_idle(xenidc_channel *channel, const struct xenidc_error *why)
{
	(void)why;
	CHECK_EQ(peer.nheld, 0);
	peer.journal->idles++;
	(void)channel;
}

/* Whoever comes in: the channel is the library's to free. */
static void accepted(xenidc_listener *listener, xenidc_channel *channel)
{
	(void)listener;
	(void)channel;
}

static void channel_options(struct xenidc_channel_options *o, bool map)
{
	*o = (struct xenidc_channel_options){ .size = sizeof(*o), .map = map, .times = { .close_ns = T_CLOSE } };
}

static void peer_main(int argc, char **argv)
{
	struct xenidc_listener_options options = { .size = sizeof(options), .accepted = accepted };
	xenidc_listener *listener;
	xenidc_channel *channel;
	struct xenidc_error err;

	if (argc != 6 || strcmp(argv[1], "peer"))
		return;
	peer.map = !strcmp(argv[3], "map");
	peer.journal = journal_open(argv[5]);
	CHECK_EQ(xenidc_loop_new(NULL, &peer.loop), 0);
	channel_options(&options.channel, peer.map);
	options.channel.handlers = (struct xenidc_handlers){ .connected = connected,
							     .request = take,
							     .abandoned = abandoned,
							     .disconnecting = disconnecting,
							     .idle = peer_idle };
	if (!strcmp(argv[2], "listen")) {
		if (xenidc_listener_new(peer.loop, argv[4], &options, &listener, &err))
			check_failed(__FILE__, __LINE__, "%s", err.text);
		snprintf(peer.journal->address, sizeof(peer.journal->address), "%s", xenidc_listener_address(listener));
		peer.journal->listening = 1;
	} else if (xenidc_channel_new(peer.loop, &options.channel, &channel, &err) ||
		   xenidc_channel_connect(channel, argv[4], &err)) {
		check_failed(__FILE__, __LINE__, "%s", err.text);
	}
	CHECK_EQ(xenidc_loop_run(peer.loop), 0);
	exit(0);
}

/* --- This side */

struct end {
	xenidc_channel *channel;
	bool connected, disconnected, idle;
	struct xenidc_error why;
	unsigned ended[4];
};

struct other { /* a peer process, as seen from here */
	pid_t pid;
	struct journal *journal;
	char name[32];
};

static struct {
	xenidc_loop *loop;
	struct bystander *bystander;
	struct end end;
	struct census before;
} t;

static void on_connected(xenidc_channel *channel, const struct xenidc_limits *limits)
{
	(void)limits;
	((struct end *)xenidc_channel_user(channel))->connected = true;
}

static void on_disconnecting(xenidc_channel *channel, const struct xenidc_error *why)
{
	(void)why;
	((struct end *)xenidc_channel_user(channel))->disconnected = true;
}

static void on_idle(xenidc_channel *channel, const struct xenidc_error *why)
{
	struct end *end = xenidc_channel_user(channel);

	end->idle = true;
	end->why = *why;
}

static void done(xenidc_channel *channel, const struct xenidc_result *result)
{
	((struct end *)xenidc_channel_user(channel))->ended[result->end]++;
}

static void end_options(struct xenidc_channel_options *o, bool map)
{
	channel_options(o, map);
	o->handlers = (struct xenidc_handlers){ .connected = on_connected,
						.disconnecting = on_disconnecting,
						.idle = on_idle };
	o->user = &t.end;
}

static void on_accepted(xenidc_listener *listener, xenidc_channel *channel)
{
	(void)listener;
	CHECK(!t.end.channel);
	t.end.channel = channel;
}

static bool is_connected(void *arg)
{
	(void)arg;
	return t.end.connected;
}

static bool is_idle(void *arg)
{
	(void)arg;
	return t.end.idle;
}

static bool is_listening(void *arg)
{
	return ((struct other *)arg)->journal->listening;
}

static bool holds_all(void *arg)
{
	return ((struct other *)arg)->journal->held == HELD;
}

static bool was_told(void *arg)
{
	return ((struct other *)arg)->journal->idles > 0;
}

static struct xenidc_stats stats(void)
{
	struct xenidc_stats s = { .size = sizeof(s) };

	xenidc_channel_stats(t.end.channel, &s);
	return s;
}

static bool quarantine_is_empty(void *arg)
{
	(void)arg;
	return stats().quarantined_regions == 0;
}

static struct other other_start(const char *how, bool map, const char *address)
{
	struct other o;
	const char *argv[] = { NULL, "peer", how, map ? "map" : "copy", address, NULL, NULL };

	o.journal = journal_new(o.name);
	argv[5] = o.name;
	o.pid = proc_start(argv, NULL);
	return o;
}

static void other_stop(const struct other *o)
{
	siginfo_t info;

	CHECK_EQ(kill(o->pid, SIGSTOP), 0);
	CHECK_EQ(waitid(P_PID, (id_t)o->pid, &info, WSTOPPED), 0);
}

/* It lives, and never stumbled. */
static void other_end(struct other *o)
{
	int status;

	CHECK(!proc_ended(o->pid, &status));
	CHECK(WIFSIGNALED(proc_kill(o->pid)));
	journal_close(o->journal);
}

static void begin(bool map)
{
	struct xenidc_channel_options options;
	struct xenidc_error err;

	memset(&t.end, 0, sizeof(t.end));
	end_options(&options, map);
	CHECK_EQ(xenidc_channel_new(t.loop, &options, &t.end.channel, &err), 0);
}

static int connect_to(const char *address, struct xenidc_error *err)
{
	t.end.connected = t.end.disconnected = t.end.idle = false;
	memset(t.end.ended, 0, sizeof(t.end.ended));
	return xenidc_channel_connect(t.end.channel, address, err);
}

static void lend(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct xenidc_ref refs[2] = { { .length = LENGTH }, { .length = LENGTH } };
		struct xenidc_request request = { .refs = refs, .ref_count = 2, .done = done };
		CHECK_EQ(xenidc_buffer_get(t.end.channel, XENIDC_OUT, LENGTH, &refs[0].buffer), 0);
		CHECK_EQ(xenidc_buffer_get(t.end.channel, XENIDC_IN, LENGTH, &refs[1].buffer), 0);
		memset(refs[0].buffer.data, 0x55, LENGTH);
		CHECK_EQ(xenidc_submit(t.end.channel, &request, NULL), 0);
	}
}

/* Connected to this peer, which holds what we lent, and is stopped. */
static void lend_and_stop(struct other *o)
{
	struct xenidc_error err;

	CHECK(pump_until(t.loop, is_listening, o, 5000));
	if (connect_to(o->journal->address, &err))
		check_failed(__FILE__, __LINE__, "%s", err.text);
	CHECK(pump_until(t.loop, is_connected, NULL, 5000));
	lend(HELD);
	CHECK(pump_until(t.loop, holds_all, o, 5000));
	other_stop(o);
}

/* Close, and see how long idle takes. */
static void close_in_time(uint64_t linger_ns, uint64_t least, uint64_t most)
{
	uint64_t start = check_now(), took;

	bystander_mark(t.bystander);
	CHECK_EQ(xenidc_channel_close(t.end.channel, linger_ns), 0);
	CHECK(pump_until(t.loop, is_idle, NULL, 5000));
	took = check_now() - start;
	printf("idle after %u ms\n", (unsigned)(took / MS));
	CHECK_OP(took, >=, least);
	CHECK_OP(took, <=, most + SLACK * (uint64_t)check_factor());
	bystander_check(t.bystander);
	CHECK_EQ(t.end.why.reason, XENIDC_REASON_CLOSED);
	CHECK_EQ(t.end.ended[XENIDC_UNKNOWN], HELD);
}

/* Continued, it is told, lets go, and lives. */
static void goes_on(struct other *o)
{
	CHECK_EQ(kill(o->pid, SIGCONT), 0);
	CHECK(pump_until(t.loop, was_told, o, 5000));
	CHECK_EQ(o->journal->disconnects, 1);
	CHECK_EQ(o->journal->reason, XENIDC_REASON_CLOSED);
	CHECK(o->journal->by_peer);
	CHECK(o->journal->text[0]);
	CHECK_EQ(o->journal->held, 0);
}

static void works_again(struct other *o)
{
	struct xenidc_error err;

	o->journal->command = 1;
	if (connect_to(o->journal->address, &err))
		check_failed(__FILE__, __LINE__, "%s", err.text);
	CHECK(pump_until(t.loop, is_connected, NULL, 5000));
	lend(1);
	for (uint64_t end = check_now() + 2000000000u; !t.end.ended[XENIDC_REPLIED] && check_now() < end;)
		xenidc_loop_step(t.loop, MS);
	CHECK_EQ(t.end.ended[XENIDC_REPLIED], 1);
	CHECK_EQ(xenidc_channel_close(t.end.channel, 0), 0);
	CHECK(pump_until(t.loop, is_idle, NULL, 5000));
}

static void set_up(void)
{
	char address[64];

	memset(&t, 0, sizeof(t));
	CHECK_EQ(xenidc_loop_new(NULL, &t.loop), 0);
	snprintf(address, sizeof(address), "shm:reclaim-%d-bystander", (int)getpid());
	t.bystander = bystander_start(t.loop, address);
	census_take(&t.before);
}

static bool is_as_before(void *arg)
{
	struct census now;

	(void)arg;
	census_take(&now);
	return census_equal(&now, &t.before);
}

static void tear_down(void)
{
	struct census now;

	xenidc_channel_free(t.end.channel);
	t.end.channel = NULL;
	if (!pump_until(t.loop, is_as_before, NULL, 2000)) {
		census_take(&now);
		census_print("before", &t.before);
		census_print("now", &now);
		check_failed(__FILE__, __LINE__, "something is left");
	}
	bystander_stop(t.bystander);
	xenidc_loop_free(t.loop);
}

static void reclaim(bool map)
{
	char address[64];
	struct other o;
	uint64_t bytes;

	set_up();
	snprintf(address, sizeof(address), "shm:reclaim-%d", (int)getpid());
	o = other_start("listen", map, address);
	begin(map);
	lend_and_stop(&o);
	bytes = stats().reserved_bytes;
	CHECK_OP(bytes, >, 2 * HELD * LENGTH);
	close_in_time(0, T_CLOSE * 9 / 10, T_CLOSE);
	/* It still maps what we lent, so that is kept apart, and accounted for. */
	CHECK_EQ(stats().quarantined_regions, 1);
	CHECK(stats().quarantined_bytes > HELD * LENGTH && stats().quarantined_bytes <= bytes);
	goes_on(&o);
	CHECK(pump_until(t.loop, quarantine_is_empty, NULL, 2000));
	CHECK_EQ(stats().quarantined_bytes, 0);
	works_again(&o);
	other_end(&o);
	tear_down();
}

static void test_copies(void)
{
	reclaim(false);
}

static void test_maps(void)
{
	reclaim(true);
}

/* Given time to linger, it has that and T_close, no more. */
static void test_linger(void)
{
	char address[64];
	struct other o;

	set_up();
	snprintf(address, sizeof(address), "shm:reclaim-%d", (int)getpid());
	o = other_start("listen", false, address);
	begin(false);
	lend_and_stop(&o);
	close_in_time(200 * MS, T_CLOSE * 9 / 10, 200 * MS + T_CLOSE);
	goes_on(&o);
	other_end(&o);
	tear_down();
}

/* Nothing is shared over tcp, so nothing has to be kept; the bound is the same. */
static void test_tcp(void)
{
	struct other o;

	set_up();
	o = other_start("listen", false, "tcp:127.0.0.1:0");
	begin(false);
	lend_and_stop(&o);
	close_in_time(0, T_CLOSE * 9 / 10, T_CLOSE);
	CHECK_EQ(stats().quarantined_regions, 0);
	goes_on(&o);
	works_again(&o);
	other_end(&o);
	tear_down();
}

/* The other way round: it came to us. */
static void test_accepted(void)
{
	struct xenidc_listener_options options = { .size = sizeof(options), .accepted = on_accepted };
	xenidc_listener *listener;
	struct xenidc_error err;
	char address[64];
	struct other o;

	set_up();
	snprintf(address, sizeof(address), "shm:reclaim-%d", (int)getpid());
	end_options(&options.channel, false);
	memset(&t.end, 0, sizeof(t.end));
	CHECK_EQ(xenidc_listener_new(t.loop, address, &options, &listener, &err), 0);
	o = other_start("dial", false, address);
	CHECK(pump_until(t.loop, is_connected, NULL, 5000));
	lend(HELD);
	CHECK(pump_until(t.loop, holds_all, &o, 5000));
	other_stop(&o);
	close_in_time(0, T_CLOSE * 9 / 10, T_CLOSE);
	CHECK_EQ(stats().quarantined_regions, 1);
	goes_on(&o);
	CHECK(pump_until(t.loop, quarantine_is_empty, NULL, 2000));
	other_end(&o);
	xenidc_listener_free(listener);
	tear_down();
}

/* Not even one that is made where a channel was that has something in quarantine. */
static void another_channel_is_not_charged(void)
{
	xenidc_channel *charged = t.end.channel;

	for (int i = 0; i < 3; i++) {
		begin(false);
		CHECK_EQ(stats().quarantined_regions, 0);
		xenidc_channel_free(t.end.channel);
	}
	xenidc_channel_free(charged);
	begin(false);
	CHECK_EQ(stats().quarantined_regions, 0);
}

/* Two in quarantine, and there will be no third; one that dies lets go as well. */
static void test_quarantine_is_bounded(void)
{
	struct other o[3];
	struct xenidc_error err = { 0 };
	char address[64];
	int r;

	set_up();
	for (unsigned i = 0; i < 3; i++) {
		snprintf(address, sizeof(address), "shm:reclaim-%d-%u", (int)getpid(), i);
		o[i] = other_start("listen", false, address);
		CHECK(pump_until(t.loop, is_listening, &o[i], 5000));
	}
	begin(false);
	for (unsigned i = 0; i < 2; i++) {
		lend_and_stop(&o[i]);
		close_in_time(0, T_CLOSE * 9 / 10, T_CLOSE);
		CHECK_EQ(stats().quarantined_regions, i + 1);
	}
	r = connect_to(o[2].journal->address, &err);
	if (r == 0) {
		CHECK(pump_until(t.loop, is_idle, NULL, 5000));
		err = t.end.why;
	}
	CHECK_EQ(err.reason, XENIDC_REASON_LIMIT);
	printf("refused: %s\n", err.text);
	another_channel_is_not_charged();
	/* One of the two dies, the other goes on. */
	CHECK(WIFSIGNALED(proc_kill(o[0].pid)));
	journal_close(o[0].journal);
	goes_on(&o[1]);
	works_again(&o[2]);
	other_end(&o[1]);
	other_end(&o[2]);
	tear_down();
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = { TEST(test_copies),   TEST(test_maps),
						   TEST(test_linger),   TEST(test_tcp),
						   TEST(test_accepted), TEST(test_quarantine_is_bounded) };

	bystander_main(argc, argv);
	peer_main(argc, argv);
	setvbuf(stdout, NULL, _IOLBF, 0);
	return check_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}
