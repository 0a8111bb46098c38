/* SPDX-License-Identifier: MIT */
/* transport-local over shm, op by op: frames and slots, sleeping and waking, and all ways in which it ends. */
#include "local_pair.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/lib/fault_os.h"

/* --- Frames and slots */

static void test_frames(void)
{
	struct xi_listener *listener;
	struct xi_conn *a, *b;

	setup();
	listener = listener_new();
	pair_up(listener, false, &a, &b);
	for (unsigned round = 0; round < 100; round++) {
		send_frames(a, 1 + round % 31);
		send_frames(b, 1 + round * 5 % 31);
		STEP_UNTIL(b->received == a->sent && a->received == b->sent);
	}
	CHECK_EQ(a->lost + b->lost, 0);
	conn_free(a);
	conn_free(b);
	listener_free(listener);
	teardown();
}

static void test_identity(void)
{
	struct xenidc_peer peer = { .size = sizeof(peer) };
	struct xi_listener *listener;
	struct xi_conn *a, *b;

	setup();
	listener = listener_new();
	pair_up(listener, false, &a, &b);
	shm->identify(b, &peer);
	CHECK(peer.has_uid);
	CHECK_EQ(peer.pid, getpid());
	CHECK_EQ(peer.uid, geteuid());
	CHECK_HAS(peer.address, "process");
	conn_free(a);
	conn_free(b);
	listener_free(listener);
	teardown();
}

static void fill(struct xi_conn *conn, uint32_t slot, uint8_t seed)
{
	uint32_t size;
	uint8_t *p = conn->tx_base + xi_layout_slot(&conn->tx, slot, &size);

	CHECK_EQ(size, SLOT_SIZE);
	for (uint32_t i = 0; i < size; i++)
		p[i] = (uint8_t)(seed + i * 3);
}

static void check_filled(const uint8_t *p, uint32_t offset, uint32_t length, uint8_t seed)
{
	for (uint32_t i = 0; i < length; i++)
		CHECK_EQ(p[i], (uint8_t)(seed + (offset + i) * 3));
}

static void test_slots_are_copied(void)
{
	struct xi_listener *listener;
	struct xi_conn *a, *b;
	uint8_t copy[SLOT_SIZE];
	uint32_t size;

	setup();
	listener = listener_new();
	pair_up(listener, false, &a, &b);
	for (uint32_t slot = 0; slot < 4; slot++) {
		uint8_t *landing = b->rx_base + xi_layout_slot(&b->rx, slot, &size);
		fill(a, slot, (uint8_t)slot);
		CHECK_EQ(shm->fetch(b, slot, 100, 4096), 0);
		check_filled(landing + 100, 100, 4096, (uint8_t)slot);
		CHECK_EQ(landing[99] | landing[4196], 0); /* and no byte more */
		CHECK_EQ(shm->read(b, slot, 1, copy, SLOT_SIZE - 1), 0);
		check_filled(copy, 1, SLOT_SIZE - 1, (uint8_t)slot);
		fill(a, slot, 99); /* what the peer does now changes nothing here */
		check_filled(landing + 100, 100, 4096, (uint8_t)slot);
	}
	conn_free(a);
	conn_free(b);
	listener_free(listener);
	teardown();
}

static void test_map_and_zero_pages(void)
{
	struct xi_listener *listener;
	struct xi_conn *a, *b;
	uint32_t size;
	uint64_t at;

	setup();
	listener = listener_new();
	pair_up(listener, true, &a, &b);
	at = xi_layout_slot(&b->rx, 2, &size);
	fill(a, 2, 5);
	check_filled(b->rx_base + at, 0, size, 5);
	fill(a, 2, 6);
	check_filled(b->rx_base + at, 0, size, 6);
	conn_close(b);
	for (uint64_t i = 0; i < b->rx.bytes; i++)
		CHECK_EQ(b->rx_base[i], 0);
	fill(a, 2, 7); /* the owner is not hindered */
	CHECK_EQ(b->rx_base[at], 0);
	CHECK_EQ(shm->read(b, 0, 0, &size, 4), -ENOTCONN);
	conn_free(a);
	CHECK_EQ(b->rx_base[at], 0);
	conn_free(b);
	listener_free(listener);
	teardown();
}

/* What the peer must not be able to do to our region, it cannot. */
static void test_peer_cannot_write(void)
{
	struct xi_listener *listener;
	struct xi_conn *a, *b;

	setup();
	listener = listener_new();
	pair_up(listener, true, &a, &b);
	CHECK_EQ(mprotect(b->rx_base, b->rx.bytes, PROT_READ | PROT_WRITE), -1);
	CHECK_EQ(errno, EACCES);
	conn_free(a);
	conn_free(b);
	listener_free(listener);
	teardown();
}

static void test_nothing_is_allocated(void)
{
	struct xi_listener *listener;
	struct xi_conn *a, *b;
	uint64_t before;

	setup();
	fault_os_install();
	listener = listener_new();
	pair_up(listener, false, &a, &b);
	before = fault_os_allocations();
	for (unsigned round = 0; round < 50; round++) {
		send_frames(a, 10);
		shm->fetch(b, round % 4, 0, SLOT_SIZE);
		STEP_UNTIL(b->received == a->sent);
		send_frames(b, 1); /* a frame carries the receipt for those that were read */
		STEP_UNTIL(a->received == b->sent);
	}
	CHECK_EQ(fault_os_allocations(), before);
	conn_free(a);
	conn_free(b);
	listener_free(listener);
	teardown();
	fault_os_remove();
}

/* --- Two processes */

/* The other side of a connection, in a process of its own: it accepts, then runs `body`. */
static pid_t serve(void (*body)(struct xi_conn *conn), bool map)
{
	int ready[2];
	char byte;
	pid_t pid;

	CHECK_EQ(pipe(ready), 0);
	pid = check_fork();
	if (pid == 0) {
		struct xi_listener *listener;
		struct xi_conn *conn;
		char at[sizeof(name)];
		memcpy(at, name, sizeof(at));
		setup();
		memcpy(name, at, sizeof(at));
		listener = listener_new();
		CHECK_EQ(write(ready[1], "x", 1), 1);
		conn = accept_half(listener, map);
		accept_rest(conn);
		body(conn);
		conn_free(conn);
		listener_free(listener);
		teardown();
		_exit(0);
	}
	close(ready[1]);
	CHECK_EQ(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return pid;
}

static void setup_peer(pid_t *pid, void (*body)(struct xi_conn *conn), struct xi_conn **ret)
{
	snprintf(name, sizeof(name), "unit-%d", getpid());
	*pid = serve(body, false);
	setup();
	*ret = connect_up(false);
}

#define TURNS 300
static void echo(struct xi_conn *conn)
{
	while (conn->sent < TURNS) {
		STEP_UNTIL(conn->received > conn->sent);
		send_frames(conn, conn->received - conn->sent);
	}
	STEP_UNTIL(conn->lost);
}

/* Blocking loops on both sides: each frame is a sleep and a wake-up, on futex words or at the doorbell. */
static void test_sleep_and_wake(void)
{
	struct xenidc_stats stats = { 0 };
	struct xi_conn *a;
	pid_t pid;

	setup_peer(&pid, echo, &a);
	for (unsigned i = 0; i < TURNS; i++) {
		if (i % 50 == 49) /* beyond the tier of futexes: both sleep at their descriptors */
			STEP_UNTIL(usleep(10000) == 0);
		send_frames(a, 1);
		STEP_UNTIL(a->received == a->sent);
	}
	shm->stats(a, &stats);
	CHECK(stats.wakeups_sent > 0 && stats.wakeups_sent <= TURNS);
	CHECK_EQ(stats.wakeups_sent + stats.wakeups_suppressed, TURNS);
	conn_free(a);
	CHECK_EQ(check_wait(pid), 0);
	teardown();
}

static void leave_orderly(struct xi_conn *conn)
{
	STEP_UNTIL(conn->received == 3);
	send_frames(conn, 40);
	send_frame(conn, XI_FRAME_DISCONNECT);
	shm->flush(conn);
}

/* What was committed before a close is still delivered, and then the end is told at once: no grace. */
static void test_orderly_exit(void)
{
	struct xi_conn *a;
	uint32_t last;
	pid_t pid;

	setup_peer(&pid, leave_orderly, &a);
	send_frames(a, 3);
	CHECK_EQ(check_wait(pid), 0); /* the peer is gone altogether before we look */
	STEP_UNTIL(a->lost);
	CHECK_EQ(a->received, 41);
	CHECK_EQ(a->last_kind, XI_FRAME_DISCONNECT);
	CHECK(!a->priv->local.grace_over);
	CHECK(shm->peer_dispatched(a, &last));
	conn_free(a);
	teardown();
}

static void die(struct xi_conn *conn)
{
	STEP_UNTIL(conn->received == 3);
	shm->publish_dispatch(conn, 4711);
	send_frames(conn, 20);
	raise(SIGKILL);
}

static void test_peer_dies(void)
{
	struct xi_conn *a;
	uint32_t last = 0;
	pid_t pid;

	setup_peer(&pid, die, &a);
	send_frames(a, 3);
	CHECK(!shm->peer_dispatched(a, &last));
	STEP_UNTIL(a->lost);
	CHECK_EQ(a->reason, XENIDC_REASON_PEER_DIED);
	CHECK_EQ(a->received, 20);
	CHECK(shm->peer_dispatched(a, &last));
	CHECK_EQ(last, 4711);
	CHECK_EQ(check_wait(pid), -SIGKILL);
	conn_close(a);
	CHECK(shm->peer_dispatched(a, &last)); /* kept beyond the mapping */
	CHECK_EQ(last, 4711);
	conn_free(a);
	teardown();
}

/* It closes its socket without a word, but lives: that is told as lost, after the grace. */
static void drop_socket(struct xi_conn *conn)
{
	STEP_UNTIL(conn->received == 1);
	close(conn->priv->link->socket - 1);
	conn->priv->link->socket = 1 + dup(0); /* something to close */
	pause();
}

static void test_peer_drops(void)
{
	struct xi_conn *a;
	uint32_t last;
	pid_t pid;

	setup_peer(&pid, drop_socket, &a);
	send_frames(a, 1);
	STEP_UNTIL(a->lost);
	CHECK_EQ(a->reason, XENIDC_REASON_LOST);
	CHECK(!shm->peer_dispatched(a, &last));
	conn_free(a);
	kill(pid, SIGKILL);
	CHECK_EQ(check_wait(pid), -SIGKILL);
	teardown();
}

/* --- The end on one side */

static void test_close_is_noticed(void)
{
	for (int kind = 0; kind < 4; kind++) {
		struct xi_listener *listener;
		struct xi_conn *a, *b, *closer, *other;
		setup();
		listener = listener_new();
		pair_up(listener, kind & 2, &a, &b);
		closer = kind & 1 ? a : b;
		other = kind & 1 ? b : a;
		send_frames(closer, 63);
		conn_close(closer);
		STEP_UNTIL(other->lost);
		CHECK_EQ(other->received, 63);
		CHECK_EQ(other->reason, XENIDC_REASON_LOST);
		CHECK(!other->priv->local.grace_over); /* it said so itself: nothing more was waited for */
		conn_close(other);
		conn_free(a);
		conn_free(b);
		CHECK_EQ(xi_alive(XI_OBJECT_QUARANTINE), 0);
		listener_free(listener);
		teardown();
	}
}

/* A region that the peer still maps is accounted for until it lets go. */
static void test_quarantine(void)
{
	struct xi_listener *listener;
	struct xi_conn *a, *b;
	uint64_t bytes;
	uint32_t regions;

	setup();
	listener = listener_new();
	pair_up(listener, false, &a, &b);
	bytes = a->tx.bytes;
	conn_free(a); /* b has not hung up */
	CHECK_EQ(xi_alive(XI_OBJECT_QUARANTINE), 1);
	shm->quarantine(&owner, &bytes, &regions);
	CHECK_EQ(regions, 1);
	CHECK_EQ(bytes, b->rx.bytes);
	shm->quarantine(&bytes, &bytes, &regions);
	CHECK_EQ(regions, 0);
	settle();
	CHECK_EQ(xi_alive(XI_OBJECT_QUARANTINE), 1);
	conn_close(b);
	STEP_UNTIL(xi_alive(XI_OBJECT_QUARANTINE) == 0);
	shm->quarantine(&owner, &bytes, &regions);
	CHECK_EQ(regions, 0);
	CHECK_EQ(bytes, 0);
	conn_free(b);
	listener_free(listener);
	teardown();
}

static void test_loop_ends_quarantine(void)
{
	struct xi_listener *listener;
	struct xi_conn *a, *b;
	xenidc_loop *first;

	setup();
	first = loop;
	listener = listener_new();
	pair_up(listener, false, &a, &b);
	conn_free(a);
	CHECK_EQ(xi_alive(XI_OBJECT_QUARANTINE), 1);
	send_frames(b, 3);
	conn_free(b);
	listener_free(listener);
	CHECK(loop == first);
	teardown();
}

static void stopped(struct xi_conn *conn)
{
	STEP_UNTIL(conn->received == 1);
	raise(SIGSTOP);
	STEP_UNTIL(conn->lost);
}

/* A stopped peer holds up nothing; its share is accounted for until it goes on, or dies. */
static void test_stopped_peer(void)
{
	for (int kill_it = 0; kill_it < 2; kill_it++) {
		struct xi_conn *a;
		pid_t pid;
		int status;
		setup_peer(&pid, stopped, &a);
		send_frames(a, 1);
		CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
		CHECK(WIFSTOPPED(status));
		send_frames(a, 20);
		conn_free(a);
		settle();
		CHECK_EQ(xi_alive(XI_OBJECT_QUARANTINE), 1);
		kill(pid, kill_it ? SIGKILL : SIGCONT);
		STEP_UNTIL(xi_alive(XI_OBJECT_QUARANTINE) == 0);
		CHECK_EQ(check_wait(pid), kill_it ? -SIGKILL : 0);
		teardown();
	}
}

/* Closed in every state of the connect, by either side. */
static void test_closed_half_way(void)
{
	for (int step = 0; step < 6; step++) {
		struct xi_listener *listener;
		struct xenidc_error err = { 0 };
		struct xi_conn *a, *b = NULL;
		setup();
		listener = listener_new();
		a = dial();
		if (step > 0)
			STEP_UNTIL(a->dialled && listener->accepted);
		if (step > 1)
			send_hello(a, false);
		if (step > 2)
			b = accept_half(listener, false);
		else
			b = listener->accepted;
		if (step > 3) {
			STEP_UNTIL(a->hellos == 1);
			must(reserve(a, false, &err), &err);
		}
		if (step > 4)
			must(import(a, &err), &err);
		if (step % 2 == 0 || !b)
			conn_free(a);
		else
			conn_free(b);
		settle();
		if (step == 0)
			b = listener->accepted;
		if (b && step % 2 == 0)
			STEP_UNTIL(b->lost);
		if (b && step % 2)
			STEP_UNTIL(a->lost);
		if (step % 2 == 0 && b)
			conn_free(b);
		if (step % 2)
			conn_free(a);
		STEP_UNTIL(xi_alive(XI_OBJECT_QUARANTINE) == 0);
		listener_free(listener);
		teardown();
	}
}

static void test_nobody_listens(void)
{
	struct xi_listener *listener;
	struct xi_conn *a;

	setup();
	a = dial();
	CHECK_EQ(a->lost, 0);
	STEP_UNTIL(a->lost);
	CHECK_EQ(a->reason, XENIDC_REASON_UNREACHABLE);
	CHECK_HAS(a->text, name);
	conn_free(a);
	listener = listener_new(); /* it listens, but takes nobody */
	listener->refuse = true;
	a = dial();
	STEP_UNTIL(a->lost);
	CHECK_EQ(a->reason, XENIDC_REASON_LOST);
	conn_free(a);
	listener_free(listener);
	teardown();
}

/* The other side ends, and says why, in the same moment: the connect message comes first. */
static void test_last_words(void)
{
	struct xi_listener *listener;
	struct xi_conn *a, *b;

	setup();
	listener = listener_new();
	a = dial();
	STEP_UNTIL(a->dialled && listener->accepted);
	b = listener->accepted;
	send_hello(a, false); /* never read: the close will look like a reset */
	send_hello(b, false);
	conn_free(b);
	STEP_UNTIL(a->lost);
	CHECK_EQ(a->hellos, 1);
	conn_free(a);
	listener_free(listener);
	teardown();
}

/* --- Peers that break the rules */

static void test_impossible_sequence(void)
{
	struct xi_listener *listener;
	struct xi_conn *a, *b;

	setup();
	listener = listener_new();
	pair_up(listener, false, &a, &b);
	send_frames(a, 2);
	*(uint32_t *)(void *)(a->tx_base + XI_PAGE + 2 * a->tx.frame_stride) = 12345;
	STEP_UNTIL(b->lost);
	CHECK_EQ(b->received, 2);
	CHECK_EQ(b->reason, XENIDC_REASON_PROTOCOL);
	conn_free(a);
	conn_free(b);
	listener_free(listener);
	teardown();
}

static void test_impossible_event_word(void)
{
	struct xi_listener *listener;
	struct xi_conn *a, *b;

	setup();
	listener = listener_new();
	pair_up(listener, false, &a, &b);
	*(uint64_t *)(void *)(b->tx_base + 64) = UINT64_MAX;
	send_frames(a, 1);
	CHECK_EQ(a->lost, 1);
	CHECK_EQ(a->reason, XENIDC_REASON_PROTOCOL);
	conn_free(a);
	conn_free(b);
	listener_free(listener);
	teardown();
}

/* It reads, and answers, but never says in the ring that it has read. */
static void test_no_receipts(void)
{
	struct xi_listener *listener;
	struct xi_conn *a, *b;

	setup();
	listener = listener_new();
	pair_up(listener, false, &a, &b);
	send_frames(a, 63);
	STEP_UNTIL(b->received == 63);
	CHECK_EQ(a->lost, 0);
	make_frame(shm->tx_begin(a), 63, frame_length(63, 200), XI_FRAME_MESSAGE);
	shm->tx_commit(a, frame_length(63, 200), NULL, 0, 0);
	shm->flush(a);
	CHECK_EQ(a->lost, 1);
	CHECK_EQ(a->reason, XENIDC_REASON_PROTOCOL);
	shm->tx_commit(a, frame_length(63, 200), NULL, 0, 0); /* as the core does to say goodbye */
	shm->flush(a);
	CHECK_EQ(a->lost, 1);
	conn_free(a);
	conn_free(b);
	listener_free(listener);
	teardown();
}

/* A doorbell may be rung as often as it was asked for. */
static void test_doorbell_storm(void)
{
	struct xi_listener *listener;
	struct xi_conn *a, *b;
	unsigned rings = 0;

	setup();
	listener = listener_new();
	pair_up(listener, false, &a, &b);
	for (int i = 0; i < 100; i++) {
		send_frames(a, 1);
		STEP_UNTIL(b->received == a->sent);
		send_frames(b, 1);
		STEP_UNTIL(a->received == b->sent);
	}
	CHECK_EQ(b->lost, 0);
	while (!b->lost && rings < 100000) {
		xi_shm_link_ring(a->priv->link);
		rings++;
		xenidc_loop_step(loop, 0);
	}
	CHECK_EQ(b->reason, XENIDC_REASON_PROTOCOL);
	CHECK_OP(rings, <=, 200);
	conn_free(a);
	conn_free(b);
	listener_free(listener);
	teardown();
}

/* One that hung up, but goes on publishing, is not listened to for ever. */
static void test_talks_on(void)
{
	struct xi_listener *listener;
	struct xi_conn *a, *b;

	setup();
	listener = listener_new();
	pair_up(listener, false, &a, &b);
	xi_shm_link_hang_up(a->priv->link);
	while (!b->lost) { /* the test's time limit is what fails if this goes on */
		if (a->priv->local.ring.tx_free_count)
			send_frames(a, 1);
		if (b->priv->local.ring.tx_free_count)
			send_frames(b, 1);
		xenidc_loop_step(loop, 0);
	}
	CHECK_EQ(b->reason, XENIDC_REASON_LOST);
	conn_free(a);
	conn_free(b);
	listener_free(listener);
	teardown();
}

CHECK_MAIN(TEST(test_frames), TEST(test_identity), TEST(test_slots_are_copied), TEST(test_map_and_zero_pages),
	   TEST(test_peer_cannot_write), TEST(test_nothing_is_allocated), TEST(test_sleep_and_wake),
	   TEST(test_orderly_exit), TEST(test_peer_dies), TEST(test_peer_drops), TEST(test_close_is_noticed),
	   TEST(test_quarantine), TEST(test_loop_ends_quarantine), TEST(test_stopped_peer), TEST(test_closed_half_way),
	   TEST(test_nobody_listens), TEST(test_last_words), TEST(test_impossible_sequence),
	   TEST(test_impossible_event_word), TEST(test_no_receipts), TEST(test_doorbell_storm), TEST(test_talks_on))
