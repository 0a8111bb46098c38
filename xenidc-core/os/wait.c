/* SPDX-License-Identifier: MIT */
/*
 * How a loop sleeps on Linux: on futex words (quick to wake, but blind for descriptors) or in epoll. Whether the
 * wake-up of wake() has to be a futex, a byte in the eventfd or nothing, `mode` says; `word` is 1 from a wake() until
 * the sleep that it ends has ended.
 */
#include <errno.h>
#include <stdatomic.h>
#include <sys/eventfd.h>

#include "xenidc-core/base/assert.h"
#include "xenidc-core/base/counters.h"
#include "xenidc-core/base/os.h"
#include "xenidc-core/loop.h"

#define BATCH 64
/* Each word costs 0.3 microseconds to queue on and to leave; with more than these epoll is quicker. */
#define WORDS_MAX 16

enum mode { AWAKE, ON_FUTEX, ON_EPOLL };

struct waiter {
	xenidc_loop *loop;
	int epoll, event; /* descriptor plus one, so that zero means none */
	bool foreign;     /* somebody else polls our descriptor */
	bool no_waitv;    /* Linux before 5.16 */
	_Atomic uint32_t word;
	_Atomic uint32_t mode;
	struct epoll_event batch[BATCH];
	int ready, next; /* of the batch: fetched, and the first that has not been run yet */
};

static void waiter_fini(void *priv)
{
	struct waiter *w = priv;
	if (w->event) {
		xi_os->close(w->event - 1);
		xi_destroyed(XI_OBJECT_FD);
	}
	if (w->epoll) {
		xi_os->close(w->epoll - 1);
		xi_destroyed(XI_OBJECT_FD);
	}
	w->event = w->epoll = 0;
}

static int waiter_init(void *priv, xenidc_loop *loop)
{
	struct waiter *w = priv;
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };
	w->loop = loop;
	int r = xi_os->epoll_create();
	if (r < 0)
		return r;
	xi_created(XI_OBJECT_FD);
	w->epoll = r + 1;
	r = xi_os->eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (r >= 0) {
		xi_created(XI_OBJECT_FD);
		w->event = r + 1;
		r = xi_os->epoll_ctl(w->epoll - 1, EPOLL_CTL_ADD, r, &event);
	}
	if (r < 0)
		waiter_fini(w);
	return r;
}

static int waiter_fd(void *priv)
{
	struct waiter *w = priv;
	const uint64_t one = 1;
	w->foreign = true;
	atomic_store(&w->mode, ON_EPOLL);
	/* A wake() of before this line has not made the descriptor readable. */
	if (atomic_load(&w->word))
		xi_os->write(w->event - 1, &one, sizeof(one));
	return w->epoll - 1;
}

/* Fetch what is ready into the batch. The eventfd has no watch; it is sorted out here. */
static void fetch(struct waiter *w, int64_t timeout_ns)
{
	uint64_t count;
	XI_DASSERT(w->next >= w->ready);
	int ready = xi_os->epoll_wait(w->epoll - 1, w->batch, BATCH, timeout_ns);
	for (int i = 0; i < ready; i++) {
		if (w->batch[i].data.ptr)
			continue;
		/* In this order: a wake() in between writes nothing, and what it is about is looked at after this. */
		xi_os->read(w->event - 1, &count, sizeof(count));
		atomic_store(&w->word, 0);
	}
	w->next = 0;
	w->ready = ready > 0 ? ready : 0;
}

static unsigned run_batch(struct waiter *w)
{
	unsigned events = 0;
	while (w->next < w->ready) {
		struct epoll_event *e = &w->batch[w->next++];
		if (e->data.ptr)
			events += xi_loop_watch_ready(e->data.ptr, e->events);
	}
	return events;
}

static unsigned waiter_look(void *priv)
{
	struct waiter *w = priv;
	fetch(w, 0);
	return run_batch(w);
}

static void sleep_on_words(struct waiter *w, const struct xi_wait *words, unsigned n, int64_t timeout_ns)
{
	struct xi_futex_wait all[WORDS_MAX + 1];
	XI_ASSERT(n <= WORDS_MAX);
	for (unsigned i = 0; i < n; i++)
		all[i] = (struct xi_futex_wait){ .word = words[i].futex, .value = words[i].value };
	all[n] = (struct xi_futex_wait){ .word = (const uint32_t *)(const void *)&w->word, .value = 0 };
	if (xi_os->futex_wait(all, n + 1, timeout_ns) == -ENOSYS)
		w->no_waitv = true;
}

static unsigned waiter_sleep(void *priv, const struct xi_wait *words, unsigned n, int64_t timeout_ns)
{
	struct waiter *w = priv;
	if (w->foreign) {
		/* Whoever calls wake() writes to the eventfd, always. */
		fetch(w, timeout_ns);
		return run_batch(w);
	}
	/* Here mode, then word; in wake() word, then mode: one of both sees the other. */
	atomic_store(&w->mode, n ? ON_FUTEX : ON_EPOLL);
	bool woken = atomic_load(&w->word) != 0;
	if (!woken && n)
		sleep_on_words(w, words, n, timeout_ns);
	else if (!woken)
		fetch(w, timeout_ns);
	atomic_store(&w->mode, AWAKE);
	atomic_store(&w->word, 0);
	return run_batch(w);
}

static bool waiter_futex_ok(void *priv, unsigned n)
{
	const struct waiter *w = priv;
	return !w->foreign && !w->no_waitv && n <= WORDS_MAX;
}

static void waiter_wake(void *priv)
{
	struct waiter *w = priv;
	const uint64_t one = 1;
	if (atomic_exchange(&w->word, 1))
		return;
	uint32_t mode = atomic_load(&w->mode);
	if (mode == ON_FUTEX)
		xi_os->futex_wake((uint32_t *)(void *)&w->word, 1);
	else if (mode == ON_EPOLL)
		xi_os->write(w->event - 1, &one, sizeof(one));
}

/* A watch that ends while its event waits in the batch must not be called any more. */
static void forget(struct waiter *w, const struct xenidc_watch *watch)
{
	for (int i = w->next; i < w->ready; i++)
		if (w->batch[i].data.ptr == watch)
			w->batch[i].data.ptr = NULL;
}

static int waiter_watch(void *priv, struct xenidc_watch *watch, int op)
{
	struct waiter *w = priv;
	struct epoll_event event = { .events = watch->events, .data.ptr = watch };
	XI_ASSERT(watch);
	if (op == EPOLL_CTL_DEL)
		forget(w, watch);
	return xi_os->epoll_ctl(w->epoll - 1, op, watch->fd, &event);
}

const struct xi_waiter xi_waiter_linux = {
	.size = sizeof(struct waiter),
	.init = waiter_init,
	.fini = waiter_fini,
	.fd = waiter_fd,
	.look = waiter_look,
	.sleep = waiter_sleep,
	.futex_ok = waiter_futex_ok,
	.wake = waiter_wake,
	.watch = waiter_watch,
};
