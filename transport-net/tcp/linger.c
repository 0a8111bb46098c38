/* SPDX-License-Identifier: MIT */
/*
 * After a connection: what we sent may still be on its way. Closing a socket that has unread bytes, or receives some
 * later, makes the kernel reset the connection, and with it goes what the peer had not read. So the socket waits, its
 * way out shut, until the peer has shut its own, and throws away what still comes; not for long.
 */
#include "tcp.h"

#include <errno.h>
#include <poll.h>

#include "xenidc-core/base/assert.h"
#include "xenidc-core/base/list.h"
#include "xenidc-core/base/os.h"
#include "xenidc-core/base/times.h"
#include "xenidc-core/loop.h"

/* Thrown away in one go, and altogether: a peer that sends on and on is cut off. */
#define DRAIN_BUDGET 16
#define DRAIN_MAX (64u << 20)

struct tcp_linger {
	struct xi_member member;
	struct xenidc_watch watch;
	struct xenidc_timer timer;
	int sock;
	uint64_t drained;
};

static void linger_end(struct tcp_linger *l)
{
	xi_loop_member_remove(&l->member);
	xenidc_timer_stop(&l->timer);
	xenidc_watch_stop(&l->watch);
	xi_tcp_close(&l->sock);
	xi_os->free(l);
}

static void linger_destroy(struct xi_member *member, bool forked)
{
	(void)forked;
	linger_end(XI_CONTAINER(member, struct tcp_linger, member));
}

static void linger_late(struct xenidc_timer *timer)
{
	linger_end(XI_CONTAINER(timer, struct tcp_linger, timer));
}

static void linger_ready(struct xenidc_watch *watch, uint32_t events)
{
	struct tcp_linger *l = XI_CONTAINER(watch, struct tcp_linger, watch);
	uint8_t nowhere[4096];

	(void)events;
	for (int i = 0; i < DRAIN_BUDGET; i++) {
		ssize_t r = xi_os->recv(l->sock - 1, nowhere, sizeof(nowhere), MSG_DONTWAIT);
		if (r == -EAGAIN || r == -EINTR)
			return;
		l->drained += r > 0 ? (uint64_t)r : 0;
		if (r <= 0 || l->drained > DRAIN_MAX) {
			linger_end(l);
			return;
		}
	}
}

struct tcp_linger *xi_tcp_linger_new(void)
{
	return xi_os->alloc(sizeof(struct tcp_linger));
}

void xi_tcp_linger(struct tcp_linger *l, xenidc_loop *loop, int *sock)
{
	int fd = *sock - 1;

	XI_ASSERT(fd >= 0 && !l->sock);
	l->sock = *sock;
	*sock = 0;
	l->member.destroy = linger_destroy;
	xi_loop_member_add(loop, &l->member);
	if (xenidc_watch_start(loop, &l->watch, fd, POLLIN, linger_ready) < 0 ||
	    xenidc_timer_start(loop, &l->timer, XI_CLOSE, linger_late) < 0)
		linger_end(l);
}
