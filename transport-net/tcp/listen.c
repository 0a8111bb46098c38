/* SPDX-License-Identifier: MIT */
/* Listening: one socket (a door) for each address, all with the same port. */
#define _GNU_SOURCE
#include "tcp.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "xenidc-core/base/assert.h"
#include "xenidc-core/base/counters.h"
#include "xenidc-core/base/failpoint.h"
#include "xenidc-core/base/list.h"
#include "xenidc-core/base/log.h"
#include "xenidc-core/base/os.h"
#include "xenidc-core/base/times.h"
#include "xenidc-core/loop.h"

#define BACKLOG 128
/* Accepted in one go before others have their turn. */
#define ACCEPT_BUDGET 16
/* The process or the machine is out of something: stop accepting for this long. */
#define PAUSE (100 * XI_MS)
/* The kernel chose a port for the first address that another address does not have free: choose again, so often. */
#define PORT_TRIES 16

static void set_doors(struct tcp_listener *l, uint32_t events)
{
	for (unsigned i = 0; i < l->count; i++)
		(void)xenidc_watch_change(&l->doors[i].watch, events);
}

static void pause_over(struct xenidc_timer *timer)
{
	set_doors(XI_CONTAINER(timer, struct tcp_listener, pause), POLLIN);
}

/* Whoever waits to be accepted would wake us at once again. */
static void pause_doors(struct tcp_door *door, int error)
{
	struct tcp_listener *l = xi_listener_priv(door->listener);

	xi_log(LOG_WARNING,
	       "cannot accept a connection: %s; close some of what is open, or raise the limit (`ulimit -n`)",
	       strerrordesc_np(-error));
	if (xenidc_timer_start(xi_listener_loop(door->listener), &l->pause, PAUSE, pause_over) == 0)
		set_doors(l, 0);
}

static bool out_of_something(int error)
{
	return error == -EMFILE || error == -ENFILE || error == -ENOBUFS || error == -ENOMEM;
}

static void door_ready(struct xenidc_watch *watch, uint32_t events)
{
	struct tcp_door *door = XI_CONTAINER(watch, struct tcp_door, watch);

	(void)events;
	for (int i = 0; i < ACCEPT_BUDGET; i++) {
		int fd = xi_os->accept(door->sock - 1, NULL, NULL);
		if (fd == -EAGAIN)
			return;
		if (out_of_something(fd)) {
			pause_doors(door, fd);
			return;
		}
		if (fd < 0) /* that peer has gone already (ECONNABORTED and the like) */
			continue;
		xi_created(XI_OBJECT_FD);
		XI_FAILPOINT(tcp_accepted);
		int sock = fd + 1;
		if (!xi_listener_incoming(door->listener, &sock))
			xi_tcp_close(&sock);
		XI_ASSERT(sock == 0); /* adopt() took it */
	}
}

static int open_door(struct tcp_door *door, const struct tcp_target *target)
{
	const int on = 1;
	int fd = xi_tcp_socket(target->address.any.sa_family), r = 0;

	if (fd < 0)
		return fd;
	door->sock = fd + 1;
	if (target->address.any.sa_family == AF_INET6)
		r = xi_os->setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if (!r)
		r = xi_os->setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (!r)
		r = xi_os->bind(fd, &target->address.any, target->length);
	if (!r)
		r = xi_os->listen(fd, BACKLOG);
	door->family = target->address.any.sa_family;
	if (r < 0)
		xi_tcp_close(&door->sock);
	return r;
}

static void close_doors(struct tcp_listener *l)
{
	for (unsigned i = 0; i < l->count; i++) {
		xenidc_watch_stop(&l->doors[i].watch);
		xi_tcp_close(&l->doors[i].sock);
	}
	l->count = 0;
}

/* The port that the kernel chose. */
static int bound_port(const struct tcp_door *door, uint16_t *ret)
{
	union tcp_socket_address address = { 0 };
	socklen_t length = sizeof(address);
	int r = xi_os->getsockname(door->sock - 1, &address.any, &length);

	if (!r)
		*ret = xi_tcp_get_port(&address);
	return r;
}

/* A family, or an address of several, that this machine does not have. */
static bool can_do_without(int error)
{
	return error == -EAFNOSUPPORT || error == -EADDRNOTAVAIL || error == -EPROTONOSUPPORT;
}

/* Open a door at each target, all at `*port`; 0: the kernel chooses. */
static int open_doors(struct tcp_listener *l, struct tcp_target *targets, unsigned n, uint16_t *port)
{
	int error = -EADDRNOTAVAIL;

	for (unsigned i = 0; i < n; i++) {
		struct tcp_door *door = &l->doors[l->count];
		xi_tcp_set_port(&targets[i].address, *port);
		int r = open_door(door, &targets[i]);
		if (can_do_without(r)) {
			error = r;
			continue;
		}
		if (!r)
			l->count++;
		if (!r && !*port)
			r = bound_port(door, port);
		if (r < 0) {
			close_doors(l);
			return r;
		}
	}
	return l->count ? 0 : error;
}

static int watch_doors(struct xi_listener *listener)
{
	struct tcp_listener *l = xi_listener_priv(listener);
	int r = 0;

	for (unsigned i = 0; i < l->count && !r; i++) {
		struct tcp_door *door = &l->doors[i];
		door->listener = listener;
		r = xenidc_watch_start(xi_listener_loop(listener), &door->watch, door->sock - 1, POLLIN, door_ready);
		if (!r) /* a newcomer can wait a little longer than those who are here */
			xi_loop_watch_lazy(&door->watch, true);
	}
	return r;
}

/* What a client can connect to. Where we listen everywhere, this machine's loopback stands for it. */
static int hand_out(struct tcp_name *name, int family, uint16_t port, char *ret)
{
	char where[TCP_HOST_MAX + 10];
	int n;

	if (!name->host[0] || name->host[0] == '*') {
		name->six = family == AF_INET6;
		snprintf(name->host, sizeof(name->host), "%s", name->six ? "::1" : "127.0.0.1");
	}
	xi_tcp_name_text(name, port, where, sizeof(where));
	n = snprintf(ret, XENIDC_ADDRESS_MAX, "tcp:%s%s%s", where, name->service[0] ? "/" : "", name->service);
	return n < XENIDC_ADDRESS_MAX ? 0 : -ENAMETOOLONG;
}

int xi_tcp_listen(struct xi_listener *listener, const char *rest, char *name, struct xenidc_error *err)
{
	struct tcp_listener *l = xi_listener_priv(listener);
	struct tcp_target targets[TCP_TARGETS_MAX];
	struct tcp_name wanted;
	char where[TCP_HOST_MAX + 10], text[XENIDC_ERROR_TEXT_MAX];
	uint16_t port = 0;
	int n, r = xi_tcp_parse(rest, &wanted, err);

	if (r)
		return r;
	n = xi_tcp_resolve(&wanted, true, targets, err);
	if (n < 0)
		return n;
	for (int i = 0; i < PORT_TRIES; i++) {
		port = wanted.port;
		r = open_doors(l, targets, (unsigned)n, &port);
		if (r != -EADDRINUSE || wanted.port)
			break;
	}
	xi_tcp_name_text(&wanted, wanted.port, where, sizeof(where));
	if (!r)
		r = hand_out(&wanted, l->doors[0].family, port, name);
	if (!r)
		r = watch_doors(listener);
	if (r) {
		close_doors(l);
		enum xenidc_reason reason = xi_tcp_listen_words(r, where, wanted.port, text, sizeof(text));
		return xi_error(err, r, reason, "%s", text);
	}
	return 0;
}

void xi_tcp_unlisten(struct xi_listener *listener)
{
	struct tcp_listener *l = xi_listener_priv(listener);

	xenidc_timer_stop(&l->pause);
	close_doors(l);
}
