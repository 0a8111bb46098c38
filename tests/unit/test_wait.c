/* SPDX-License-Identifier: MIT */
/* The loop on the real machine: descriptors, threads, sleeps and wake-ups that must not be lost. */
#define _GNU_SOURCE
#include "tests/lib/check.h"
#include "tests/lib/fault_os.h"
#include "xenidc-core/base/counters.h"
#include "xenidc-core/base/os.h"
#include "xenidc-core/base/times.h"
#include "xenidc-core/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static xenidc_loop *loop;

static void begin(enum xenidc_wait wait)
{
	struct xenidc_loop_options options = { .size = sizeof(options), .wait = wait };
	CHECK_EQ(xenidc_loop_new(&options, &loop), 0);
}

static void end(void)
{
	xenidc_loop_free(loop);
	CHECK_EQ(xi_alive(XI_OBJECT_LOOP), 0);
	CHECK_EQ(xi_alive(XI_OBJECT_FD), 0);
}

static int new_event(void)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	CHECK_OP(fd, >=, 0);
	return fd;
}

static void ring(int fd)
{
	CHECK_EQ(write(fd, &(uint64_t){ 1 }, 8), 8);
}

static void drain(int fd)
{
	uint64_t count;
	CHECK_EQ(read(fd, &count, 8), 8);
}

/* ------------------------------------------------------------------------------------------------------------------
 * Failures
 */
static void test_no_room(void)
{
	fault_os_install();
	int fds = open("/dev/null", O_RDONLY);
	for (unsigned k = 0;; k++) {
		loop = NULL;
		fault_os_set((struct fault){ .countdown = k, .repeat = 1 });
		int r = xenidc_loop_new(NULL, &loop);
		if (!fault_os_fired()) {
			CHECK_EQ(r, 0);
			CHECK_OP(k, >=, 5u);
			break;
		}
		CHECK(r == -ENOMEM || r == -EMFILE);
		CHECK(!loop);
		CHECK_EQ(xi_alive(XI_OBJECT_LOOP), 0);
		CHECK_EQ(xi_alive(XI_OBJECT_FD), 0);
	}
	fault_os_clear();
	end();
	/* No descriptor was left behind. */
	int again = open("/dev/null", O_RDONLY);
	CHECK_EQ(again, fds + 1);
	close(again);
	close(fds);
	fault_os_remove();
}

/* ------------------------------------------------------------------------------------------------------------------
 * Watches
 */
enum { WATCHES = 5 };
static struct {
	struct xenidc_watch watch;
	int fd;
	unsigned called;
} watched[WATCHES];
static void (*in_watch)(struct xenidc_watch *watch);

static void on_event(struct xenidc_watch *watch, uint32_t events)
{
	CHECK_EQ(events, POLLIN);
	for (int i = 0; i < WATCHES; i++)
		watched[i].called += watch == &watched[i].watch;
	drain(watch->fd);
	if (in_watch)
		in_watch(watch);
}

static void watch_all(void)
{
	for (int i = 0; i < WATCHES; i++) {
		memset(&watched[i], 0, sizeof(watched[i]));
		watched[i].fd = new_event();
		CHECK_EQ(xenidc_watch_start(loop, &watched[i].watch, watched[i].fd, POLLIN, on_event), 0);
	}
}

static void unwatch_all(void)
{
	for (int i = 0; i < WATCHES; i++) {
		xenidc_watch_stop(&watched[i].watch);
		close(watched[i].fd);
	}
}

static void test_watch(void)
{
	struct xenidc_watch w = { .fd = 0 };
	begin(XENIDC_WAIT_BLOCK);
	in_watch = NULL;
	watch_all();
	CHECK_EQ(xenidc_watch_start(loop, &w, 1000000, POLLIN, on_event), -EBADF);
	CHECK_EQ(xenidc_watch_start(loop, &w, watched[0].fd, POLLIN, on_event), -EEXIST);
	int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	CHECK_EQ(xenidc_watch_start(loop, &w, file, POLLIN, on_event), -EPERM);
	close(file);
	CHECK_EQ(xenidc_loop_step(loop, 0), 0);
	ring(watched[2].fd);
	ring(watched[3].fd);
	CHECK_EQ(xenidc_loop_step(loop, -1), 2);
	CHECK_EQ(watched[2].called, 1);
	/* Level triggered; also in a step that does not wait, and not while it is turned off. */
	ring(watched[2].fd);
	CHECK_EQ(xenidc_watch_change(&watched[2].watch, 0), 0);
	CHECK_EQ(xenidc_loop_step(loop, XI_MS), 0);
	CHECK_EQ(xenidc_watch_change(&watched[2].watch, POLLIN), 0);
	CHECK_EQ(xenidc_loop_step(loop, 0), 1);
	CHECK_EQ(watched[2].called, 2);
	unwatch_all();
	end();
}

static void stop_others(struct xenidc_watch *watch)
{
	for (int i = 0; i < WATCHES; i++)
		if (watch != &watched[i].watch) {
			xenidc_watch_stop(&watched[i].watch);
			memset(&watched[i].watch, 0, sizeof(*watch));
		}
}

static void stop_self(struct xenidc_watch *watch)
{
	xenidc_watch_stop(watch);
	memset(watch, 0, sizeof(*watch));
}

/* All ready at once; the first that is called stops the rest, which must not be called any more. */
static void test_watch_stop(void)
{
	begin(XENIDC_WAIT_BLOCK);
	watch_all();
	in_watch = stop_others;
	for (int i = 0; i < WATCHES; i++)
		ring(watched[i].fd);
	CHECK_EQ(xenidc_loop_step(loop, -1), 1);
	CHECK_EQ(xenidc_loop_step(loop, XI_MS), 0);
	unwatch_all();
	watch_all();
	in_watch = stop_self;
	for (int i = 0; i < WATCHES; i++)
		ring(watched[i].fd);
	CHECK_EQ(xenidc_loop_step(loop, -1), WATCHES);
	CHECK_EQ(xenidc_loop_step(loop, XI_MS), 0);
	unwatch_all();
	end();
}

/* ------------------------------------------------------------------------------------------------------------------
 * The waiter by itself
 */
static void test_wake_before_sleep(void)
{
	const struct xi_waiter *w = &xi_waiter_linux;
	const uint32_t word = 7;
	const struct xi_wait wait = { .futex = &word, .value = 7 };
	void *priv = xi_os->alloc(w->size);
	CHECK_EQ(w->init(priv, NULL), 0);
	CHECK(w->futex_ok(priv, 1));
	CHECK(!w->futex_ok(priv, 1000));
	for (unsigned words = 0; words < 2; words++) {
		/* It ends the next sleep, */
		w->wake(priv);
		w->wake(priv);
		CHECK_EQ(w->sleep(priv, &wait, words, -1), 0);
		/* and only that one. */
		uint64_t start = check_now();
		CHECK_EQ(w->sleep(priv, &wait, words, 2 * XI_MS), 0);
		CHECK_OP(check_now() - start, >=, 2 * XI_MS);
	}
	/* Also if the sleep is a foreign loop's, and the wake was earlier than its first look at us. */
	w->wake(priv);
	struct pollfd p = { .fd = w->fd(priv), .events = POLLIN };
	for (int i = 0; i < 3; i++) {
		CHECK(!w->futex_ok(priv, 1));
		CHECK_EQ(poll(&p, 1, -1), 1);
		CHECK_EQ(w->look(priv), 0);
		CHECK_EQ(poll(&p, 1, 0), 0);
		w->wake(priv);
	}
	CHECK_EQ(w->sleep(priv, NULL, 0, -1), 0);
	CHECK_EQ(poll(&p, 1, 0), 0);
	w->fini(priv);
	xi_os->free(priv);
	CHECK_EQ(xi_alive(XI_OBJECT_FD), 0);
}

/* ------------------------------------------------------------------------------------------------------------------
 * Posts from other threads
 */
enum { THREADS = 3, NODES = 2000 };

struct numbered {
	struct xenidc_node node;
	unsigned thread, number;
};
static struct numbered nodes[THREADS][NODES];
static unsigned next_number[THREADS];
static unsigned ran;

static void numbered_fn(struct xenidc_node *node)
{
	struct numbered *n = XI_CONTAINER(node, struct numbered, node);
	CHECK_EQ(n->number, next_number[n->thread]);
	next_number[n->thread]++;
	ran++;
}

static void *poster(void *arg)
{
	unsigned thread = (unsigned)(uintptr_t)arg;
	for (unsigned i = 0; i < NODES; i++) {
		nodes[thread][i].thread = thread;
		nodes[thread][i].number = i;
		xenidc_loop_post(loop, &nodes[thread][i].node, numbered_fn);
		/* Now and then give the loop time to fall asleep. */
		if (i % 64 == 63)
			poll(NULL, 0, 1);
	}
	return NULL;
}

static void post_in(enum xenidc_wait wait)
{
	pthread_t threads[THREADS];
	begin(wait);
	ran = 0;
	memset(next_number, 0, sizeof(next_number));
	for (uintptr_t t = 0; t < THREADS; t++)
		CHECK_EQ(pthread_create(&threads[t], NULL, poster, (void *)t), 0);
	while (ran < THREADS * NODES)
		CHECK_OP(xenidc_loop_step(loop, -1), >, 0);
	for (int t = 0; t < THREADS; t++)
		CHECK_EQ(pthread_join(threads[t], NULL), 0);
	CHECK_EQ(xenidc_loop_step(loop, 0), 0);
	end();
}

static void test_post_block(void)
{
	post_in(XENIDC_WAIT_BLOCK);
}

static void test_post_adaptive(void)
{
	post_in(XENIDC_WAIT_ADAPTIVE);
}

static void test_post_spin(void)
{
	post_in(XENIDC_WAIT_SPIN);
}

/* One node to and fro, so that each post meets the loop at another moment of falling asleep. A lost wake-up is a test
 * that does not end. */
static unsigned rounds(void)
{
	return 60000 / (check_factor() * check_factor());
}

static _Atomic unsigned answered;
static void answer(struct xenidc_node *node)
{
	(void)node;
	atomic_fetch_add(&answered, 1);
}

static void *pinger(void *arg)
{
	struct xenidc_node node;
	unsigned count = *(unsigned *)arg;
	for (unsigned i = 0; i < count; i++) {
		xenidc_loop_post(loop, &node, answer);
		while (atomic_load(&answered) == i)
			;
		for (volatile unsigned delay = (i * 37) % 997; delay; delay--)
			;
	}
	return NULL;
}

static void run_pings(void (*wait_once)(void))
{
	unsigned count = rounds();
	pthread_t thread;
	atomic_store(&answered, 0);
	CHECK_EQ(pthread_create(&thread, NULL, pinger, &count), 0);
	while (atomic_load(&answered) < count)
		wait_once();
	CHECK_EQ(pthread_join(thread, NULL), 0);
}

static void step_for_ever(void)
{
	CHECK_OP(xenidc_loop_step(loop, -1), >, 0);
}

static void test_no_lost_post(void)
{
	begin(XENIDC_WAIT_BLOCK);
	run_pings(step_for_ever);
	CHECK_EQ(xenidc_loop_set_wait(loop, XENIDC_WAIT_ADAPTIVE), 0);
	run_pings(step_for_ever);
	end();
}

static void poll_for_ever(void)
{
	int64_t timeout;
	struct pollfd p = { .fd = xenidc_loop_fd(loop), .events = POLLIN };
	if (xenidc_loop_arm(loop, &timeout) == XENIDC_ARMED) {
		CHECK_EQ(timeout, -1);
		CHECK_EQ(poll(&p, 1, -1), 1);
	}
	xenidc_loop_step(loop, 0);
}

static void test_no_lost_post_foreign(void)
{
	begin(XENIDC_WAIT_ADAPTIVE);
	run_pings(poll_for_ever);
	/* Nothing to do: the descriptor is silent. */
	int64_t timeout;
	struct pollfd p = { .fd = xenidc_loop_fd(loop), .events = POLLIN };
	xenidc_loop_step(loop, 0);
	CHECK_EQ(xenidc_loop_arm(loop, &timeout), XENIDC_ARMED);
	CHECK_EQ(poll(&p, 1, 1), 0);
	end();
}

/* ------------------------------------------------------------------------------------------------------------------
 * A connection as a transport over shared memory has it: a word that grows, a futex, and a descriptor as doorbell
 */
struct link {
	struct xi_pollable p;
	struct xenidc_watch watch;
	int bell;
	_Atomic uint32_t word;
	_Atomic uint32_t mode; /* how the peer has to notify: 0 not at all, 1 futex, 2 bell */
	uint32_t seen;
	bool futex;
	unsigned by_futex, by_bell; /* sleeps */
};

static unsigned link_process(struct xi_pollable *p, unsigned budget)
{
	struct link *l = XI_CONTAINER(p, struct link, p);
	uint32_t word = atomic_load_explicit(&l->word, memory_order_acquire);
	(void)budget;
	if (word == l->seen)
		return 0;
	CHECK_EQ(word, l->seen + 1);
	l->seen = word;
	atomic_fetch_add(&answered, 1);
	return 1;
}

static int link_arm(struct xi_pollable *p, bool futex_ok, struct xi_wait *wait)
{
	struct link *l = XI_CONTAINER(p, struct link, p);
	bool futex = futex_ok && l->futex;
	atomic_store(&l->mode, futex ? 1 : 2);
	if (atomic_load(&l->word) != l->seen) {
		atomic_store(&l->mode, 0);
		return XI_BUSY;
	}
	if (futex)
		*wait = (struct xi_wait){ .futex = (const uint32_t *)(const void *)&l->word, .value = l->seen };
	*(futex ? &l->by_futex : &l->by_bell) += 1;
	return 0;
}

static void link_disarm(struct xi_pollable *p)
{
	atomic_store(&XI_CONTAINER(p, struct link, p)->mode, 0);
}

static void on_bell(struct xenidc_watch *watch, uint32_t events)
{
	CHECK_EQ(events, POLLIN);
	drain(watch->fd);
}

static void link_add(struct link *l, bool futex, bool lazy)
{
	memset(l, 0, sizeof(*l));
	l->p = (struct xi_pollable){ .process = link_process, .arm = link_arm, .disarm = link_disarm };
	l->futex = futex;
	l->bell = new_event();
	CHECK_EQ(xenidc_watch_start(loop, &l->watch, l->bell, POLLIN, on_bell), 0);
	xi_loop_watch_lazy(&l->watch, lazy);
	xi_loop_poll_add(loop, &l->p);
}

static void link_remove(struct link *l)
{
	xi_loop_poll_remove(loop, &l->p);
	xenidc_watch_stop(&l->watch);
	close(l->bell);
}

/* The peer: one more, and a notification if it is asked for. */
static void link_send(struct link *l)
{
	atomic_fetch_add(&l->word, 1);
	uint32_t mode = atomic_load(&l->mode);
	if (mode == 1)
		CHECK_OP(xi_os->futex_wake((uint32_t *)(void *)&l->word, 1), >=, 0);
	else if (mode == 2)
		ring(l->bell);
}

static struct link links[100];
static unsigned sending_count, sending_links;

static void *sender(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < sending_count; i++) {
		link_send(&links[i % sending_links]);
		while (atomic_load(&answered) == i)
			;
		for (volatile unsigned delay = (i * 37) % 997; delay; delay--)
			;
	}
	return NULL;
}

static void run_sends(unsigned n, void (*wait_once)(void))
{
	pthread_t thread;
	sending_count = rounds() / 2;
	sending_links = n;
	atomic_store(&answered, 0);
	CHECK_EQ(pthread_create(&thread, NULL, sender, NULL), 0);
	while (atomic_load(&answered) < sending_count)
		wait_once();
	CHECK_EQ(pthread_join(thread, NULL), 0);
}

static void sleeps_of_links(unsigned n, bool futex, bool lazy, enum xenidc_wait wait, void (*wait_once)(void))
{
	begin(wait);
	for (unsigned i = 0; i < n; i++)
		link_add(&links[i], futex, lazy);
	run_sends(n, wait_once);
	for (unsigned i = 0; i < n; i++) {
		if (wait == XENIDC_WAIT_BLOCK && futex && lazy)
			CHECK_OP(links[i].by_futex, >, links[i].by_bell);
		if (!lazy || wait_once != step_for_ever)
			CHECK_EQ(links[i].by_futex, 0);
		link_remove(&links[i]);
	}
	end();
}

static void test_no_lost_futex(void)
{
	sleeps_of_links(1, true, true, XENIDC_WAIT_BLOCK, step_for_ever);
	sleeps_of_links(5, true, true, XENIDC_WAIT_BLOCK, step_for_ever);
	sleeps_of_links(3, true, true, XENIDC_WAIT_ADAPTIVE, step_for_ever);
}

static void test_no_lost_bell(void)
{
	sleeps_of_links(1, true, false, XENIDC_WAIT_BLOCK, step_for_ever);
	sleeps_of_links(5, false, true, XENIDC_WAIT_BLOCK, step_for_ever);
	sleeps_of_links(3, true, false, XENIDC_WAIT_ADAPTIVE, step_for_ever);
}

static void test_no_lost_foreign(void)
{
	sleeps_of_links(1, true, true, XENIDC_WAIT_ADAPTIVE, poll_for_ever);
	sleeps_of_links(5, true, false, XENIDC_WAIT_BLOCK, poll_for_ever);
}

/* A lazy descriptor may have to wait while the loop sleeps on a futex, but not for long. */
static void test_futex_tier(void)
{
	unsigned waited = 0;
	begin(XENIDC_WAIT_BLOCK);
	link_add(&links[0], true, true);
	/* A crowded machine may make the loop look idle, so it can take several tries. */
	while (waited < 5) {
		for (int i = 0; i < 2; i++) {
			link_send(&links[0]);
			step_for_ever();
		}
		links[0].by_futex = 0;
		ring(links[0].bell);
		uint64_t start = check_now();
		step_for_ever();
		CHECK_OP(check_now() - start, <, check_factor() * XI_SECOND);
		waited += links[0].by_futex > 0;
	}
	link_remove(&links[0]);
	end();
}

/* ------------------------------------------------------------------------------------------------------------------
 * Idle
 */
static void test_idle(void)
{
	fault_os_install();
	begin(XENIDC_WAIT_ADAPTIVE);
	for (int i = 0; i < 100; i++)
		link_add(&links[i], true, i % 2);
	/* After the first few times it sleeps at once, and once for each time. */
	for (int i = 0; i < 4; i++)
		CHECK_EQ(xenidc_loop_step(loop, XI_MS), 0);
	uint64_t before = fault_os_calls("epoll_wait") + fault_os_calls("futex_wait");
	for (int i = 0; i < 5; i++)
		CHECK_EQ(xenidc_loop_step(loop, 20 * XI_MS), 0);
	CHECK_EQ(fault_os_calls("epoll_wait") + fault_os_calls("futex_wait") - before, 5);
	for (int i = 0; i < 100; i++)
		link_remove(&links[i]);
	end();
	fault_os_remove();
}

/* Interrupted sleeps go on; kernels without futex_waitv get epoll. */
static void test_interrupted(void)
{
	fault_os_install();
	begin(XENIDC_WAIT_BLOCK);
	fault_os_set((struct fault){ .call = "epoll_wait", .repeat = 3, .error = EINTR });
	uint64_t start = check_now();
	CHECK_EQ(xenidc_loop_step(loop, 2 * XI_MS), 0);
	CHECK_OP(check_now() - start, >=, 2 * XI_MS);
	CHECK_EQ(fault_os_fired(), 3);

	link_add(&links[0], true, true);
	fault_os_set((struct fault){ .call = "futex_wait", .error = ENOSYS });
	run_sends(1, step_for_ever);
	CHECK_EQ(fault_os_fired(), 1);
	link_remove(&links[0]);
	end();
	fault_os_remove();
}

static void test_fork(void)
{
	begin(XENIDC_WAIT_BLOCK);
	in_watch = NULL;
	watch_all();
	pid_t pid = check_fork();
	if (!pid) {
		CHECK_EQ(xenidc_loop_step(loop, 0), -ECHILD);
		xenidc_watch_stop(&watched[0].watch);
		end();
		_exit(0);
	}
	CHECK_EQ(check_wait(pid), 0);
	/* The child has not taken anything away from us. */
	for (int i = 0; i < WATCHES; i++)
		ring(watched[i].fd);
	CHECK_EQ(xenidc_loop_step(loop, -1), WATCHES);
	unwatch_all();
	end();
}

CHECK_MAIN(TEST(test_no_room), TEST(test_watch), TEST(test_watch_stop), TEST(test_wake_before_sleep),
	   TEST(test_post_block), TEST(test_post_adaptive), TEST(test_post_spin), TEST(test_no_lost_post),
	   TEST(test_no_lost_post_foreign), TEST(test_no_lost_futex), TEST(test_no_lost_bell),
	   TEST(test_no_lost_foreign), TEST(test_futex_tier), TEST(test_idle), TEST(test_interrupted), TEST(test_fork))
