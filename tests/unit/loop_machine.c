/* SPDX-License-Identifier: MIT */
#include "loop_machine.h"

#include <errno.h>
#include <string.h>

#include "tests/lib/check.h"
#include "xenidc-core/base/counters.h"
#include "xenidc-core/base/os.h"
#include "xenidc-core/base/times.h"

struct machine m;
struct link links[100];

static uint64_t fake_clock(void)
{
	return m.now += m.tick;
}

static int fake_cpus(void)
{
	return m.cpus;
}

static int w_init(void *priv, xenidc_loop *for_loop)
{
	(void)priv;
	(void)for_loop;
	return 0;
}

static void w_fini(void *priv)
{
	(void)priv;
}

static int w_fd(void *priv)
{
	(void)priv;
	m.foreign = true;
	return 77;
}

static unsigned w_look(void *priv)
{
	(void)priv;
	m.looks++;
	return 0;
}

static unsigned w_sleep(void *priv, const struct xi_wait *words, unsigned n, int64_t timeout_ns)
{
	(void)priv;
	m.sleeps++;
	m.words = n;
	m.timeout = timeout_ns;
	CHECK(timeout_ns != 0);
	for (unsigned i = 0; i < n; i++)
		CHECK(words[i].futex);
	CHECK(timeout_ns > 0 || m.while_asleep);
	if (m.while_asleep)
		m.while_asleep();
	else
		m.now += (uint64_t)timeout_ns + m.oversleep;
	return 0;
}

static bool w_futex_ok(void *priv, unsigned n)
{
	(void)priv;
	return !m.foreign && n <= 20;
}

static void w_wake(void *priv)
{
	(void)priv;
	m.wakes++;
}

static int w_watch(void *priv, struct xenidc_watch *watch, int op)
{
	(void)priv;
	(void)op;
	return watch->fd == 13 ? -EBADF : watch->fd == 14 ? -ENOSPC : 0;
}

const struct xi_waiter machine_waiter = { 8, w_init, w_fini, w_fd, w_look, w_sleep, w_futex_ok, w_wake, w_watch };

static struct xi_os fake_os;
xenidc_loop *loop;

void machine_begin(enum xenidc_wait wait)
{
	struct xenidc_loop_options options = { .size = sizeof(options), .wait = wait };
	memset(&m, 0, sizeof(m));
	m.now = 1000 * XI_SECOND;
	m.cpus = 2;
	fake_os = xi_os_linux;
	fake_os.clock = fake_clock;
	fake_os.cpus = fake_cpus;
	xi_os = &fake_os;
	CHECK_EQ(xi_loop_new(&options, &machine_waiter, &loop), 0);
}

void machine_end(void)
{
	xenidc_loop_free(loop);
	CHECK_EQ(xi_alive(XI_OBJECT_LOOP), 0);
}

static unsigned link_process(struct xi_pollable *p, unsigned budget)
{
	struct link *l = XI_CONTAINER(p, struct link, p);
	unsigned n = l->events < budget ? l->events : budget;
	l->looks++;
	l->events -= n;
	if (l->then)
		l->then(l);
	return n;
}

int link_arm(struct xi_pollable *p, bool futex_ok, struct xi_wait *wait)
{
	struct link *l = XI_CONTAINER(p, struct link, p);
	l->arms++;
	if (l->events || l->busy)
		return XI_BUSY;
	if (futex_ok && l->futex)
		*wait = (struct xi_wait){ .futex = &l->word, .value = 0 };
	return 0;
}

static void link_disarm(struct xi_pollable *p)
{
	XI_CONTAINER(p, struct link, p)->disarms++;
}

void link_add(struct link *l, bool futex)
{
	*l = (struct link){ .p = { .process = link_process, .arm = link_arm, .disarm = link_disarm }, .futex = futex };
	xi_loop_poll_add(loop, &l->p);
}

void link_remove(struct link *l)
{
	xi_loop_poll_remove(loop, &l->p);
}

void ring_first(void)
{
	links[0].events = 1;
	m.now += 20000;
}

void busy_steps(unsigned n)
{
	m.while_asleep = ring_first;
	while (n--)
		CHECK_EQ(xenidc_loop_step(loop, -1), 1);
}
