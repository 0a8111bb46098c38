/* SPDX-License-Identifier: MIT */
/* How a loop looks and sleeps in the simulated world. */
#include "sim.h"

#include <errno.h>
#include <sys/epoll.h>

#include "xenidc-core/base/assert.h"

struct sim_waiter {
	struct sim_process *process;
	struct xenidc_watch *watches[SIM_WATCHES];
	unsigned count;
	bool woken; /* wake() */
	bool foreign;
	/* While it sleeps: */
	struct xi_wait words[SIM_WORDS];
	unsigned words_count;
	bool word_woken;
	uint64_t until;
};

static int waiter_init(void *priv, xenidc_loop *loop)
{
	struct sim_waiter *w = priv;

	w->process = sim_process_of(loop);
	w->process->loop = loop;
	w->process->waiter = w;
	return 0;
}

static void waiter_fini(void *priv)
{
	struct sim_waiter *w = priv;

	XI_ASSERT(!w->count);
	w->process->loop = NULL;
	w->process->waiter = NULL;
}

static int waiter_fd(void *priv)
{
	((struct sim_waiter *)priv)->foreign = true;
	return SIM_FD_FIRST - 1; /* nobody can poll it */
}

static uint32_t ready_events(const struct xenidc_watch *watch)
{
	return sim_fd_ready(watch->fd) & (watch->events | EPOLLERR | EPOLLHUP);
}

static bool watches(const struct sim_waiter *w, const struct xenidc_watch *watch)
{
	for (unsigned i = 0; i < w->count; i++)
		if (w->watches[i] == watch)
			return true;
	return false;
}

/* As with epoll: what is ready is found first, and run then, unless its watch has ended meanwhile. */
static unsigned waiter_look(void *priv)
{
	struct sim_waiter *w = priv;
	struct {
		struct xenidc_watch *watch;
		uint32_t events;
	} found[SIM_WATCHES];
	unsigned n = 0, events = 0, first = w->count ? sim_below(w->count) : 0;

	w->woken = false;
	for (unsigned i = 0; i < w->count; i++) {
		struct xenidc_watch *watch = w->watches[(first + i) % w->count];
		uint32_t ready = ready_events(watch);
		if (!ready)
			continue;
		found[n].watch = watch;
		found[n++].events = ready;
	}
	for (unsigned i = 0; i < n; i++)
		if (watches(w, found[i].watch))
			events += xi_loop_watch_ready(found[i].watch, found[i].events);
	return events;
}

bool sim_waiter_ready(const struct sim_waiter *w)
{
	if (w->woken || w->word_woken)
		return true;
	/* Who sleeps on words is blind for descriptors. */
	return !w->words_count && sim_waiter_has_news(w);
}

bool sim_waiter_has_news(const struct sim_waiter *w)
{
	for (unsigned i = 0; i < w->count; i++)
		if (ready_events(w->watches[i]))
			return true;
	return false;
}

uint64_t sim_waiter_until(const struct sim_waiter *w)
{
	return w->until;
}

void sim_waiter_wake_word(struct sim_process *process, const uint32_t *word)
{
	struct sim_waiter *w = process->waiter;

	if (!w || !process->asleep)
		return;
	for (unsigned i = 0; i < w->words_count; i++)
		if (w->words[i].futex == word)
			w->word_woken = true;
}

void sim_wake(struct sim_process *process)
{
	if (process->waiter)
		process->waiter->woken = true;
}

static unsigned waiter_sleep(void *priv, const struct xi_wait *words, unsigned n, int64_t timeout_ns)
{
	struct sim_waiter *w = priv;
	bool sleep = !w->woken;

	XI_ASSERT(n <= SIM_WORDS);
	w->until = timeout_ns < 0 ? UINT64_MAX : sim_now() + (uint64_t)timeout_ns;
	sim_yield(); /* between the last look and the sleep anything can happen */
	w->word_woken = false;
	w->words_count = n;
	for (unsigned i = 0; i < n; i++) {
		w->words[i] = words[i];
		if (*(const volatile uint32_t *)words[i].futex != words[i].value)
			sleep = false;
	}
	if (sleep && !w->woken) {
		if (w->process->coroutine)
			sim_wait_coroutine(w->process);
		else
			sim_wait_plain(w->process);
	}
	w->words_count = 0;
	w->word_woken = false;
	if (n) {
		w->woken = false;
		return 0;
	}
	return waiter_look(w);
}

static bool waiter_futex_ok(void *priv, unsigned n)
{
	const struct sim_waiter *w = priv;

	return !w->foreign && n <= SIM_WORDS;
}

static void waiter_wake(void *priv)
{
	((struct sim_waiter *)priv)->woken = true;
}

static int waiter_watch(void *priv, struct xenidc_watch *watch, int op)
{
	struct sim_waiter *w = priv;

	if (op == EPOLL_CTL_DEL) {
		for (unsigned i = 0; i < w->count; i++)
			if (w->watches[i] == watch)
				w->watches[i--] = w->watches[--w->count];
		return 0;
	}
	if (!sim_fd_exists(watch->fd))
		return -EBADF;
	if (op == EPOLL_CTL_MOD)
		return watches(w, watch) ? 0 : -ENOENT;
	if (w->count == SIM_WATCHES)
		return -ENOSPC;
	w->watches[w->count++] = watch;
	return 0;
}

const struct xi_waiter sim_waiter = {
	.size = sizeof(struct sim_waiter),
	.init = waiter_init,
	.fini = waiter_fini,
	.fd = waiter_fd,
	.look = waiter_look,
	.sleep = waiter_sleep,
	.futex_ok = waiter_futex_ok,
	.wake = waiter_wake,
	.watch = waiter_watch,
};
