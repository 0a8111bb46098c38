/* SPDX-License-Identifier: MIT */
/* The transport `shm`, its domain, and its listener. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <syslog.h>

#include "shm.h"
#include "xenidc-core/base/assert.h"
#include "xenidc-core/base/counters.h"
#include "xenidc-core/base/cursor.h"
#include "xenidc-core/base/failpoint.h"
#include "xenidc-core/base/log.h"
#include "xenidc-core/base/os.h"
#include "xenidc-core/base/times.h"

extern const struct xi_transport xi_transport_shm;

/* Connections waiting to be accepted, and how many are accepted in one go. */
#define BACKLOG 128
#define ACCEPTS 16
/* Without descriptors or memory left, accepting is tried again after this. */
#define ACCEPT_RETRY (100 * XI_MS)
/* What region_export() writes: the region's size, as a check that both sides agree. */
#define EXPORT_FORMAT 1u

/* --- The domain */

static int make(struct xi_local *local, uint64_t bytes, uint8_t **ret_base, struct xenidc_error *err)
{
	struct xi_shm_link *link = ((struct xi_shm *)local)->link;
	int e = xi_shm_region_make(link, bytes, err);

	if (e)
		return e;
	link->owner = xi_conn_owner(local->conn);
	*ret_base = link->base;
	return 0;
}

static void export(struct xi_local *local, struct xi_writer *w)
{
	struct xi_shm_link *link = ((struct xi_shm *)local)->link;

	XI_ASSERT(link->base && !link->lent);
	xi_put_u32(w, EXPORT_FORMAT);
	xi_put_u64(w, link->bytes);
	link->attach = true;
}

static int import(struct xi_local *local, struct xi_reader *r, uint64_t bytes, const uint8_t **ret_base,
		  struct xenidc_error *err)
{
	struct xi_shm_link *link = ((struct xi_shm *)local)->link;
	uint32_t format = xi_get_u32(r);
	uint64_t theirs = xi_get_u64(r);
	int e;

	if (r->bad || format != EXPORT_FORMAT || theirs != bytes)
		return xi_error(
			err, -EPROTO, XENIDC_REASON_PROTOCOL,
			"the peer describes its memory otherwise than agreed on; if both sides run current versions, "
			"report this");
	e = xi_shm_region_import(link, bytes, err);
	if (e)
		return e;
	*ret_base = link->peer_base;
	/* The socket is a doorbell from now on: looked at before a sleep, and now and then. */
	if (link->heard.loop)
		xi_loop_watch_lazy(&link->heard, true);
	if (link->ended.loop)
		xi_loop_watch_lazy(&link->ended, true);
	return 0;
}

static void zero(struct xi_local *local)
{
	xi_shm_region_zero(((struct xi_shm *)local)->link);
}

static void wake(struct xi_local *local, uint32_t *word)
{
	(void)local;
	xi_os->futex_wake(word, 1);
}

static void ring(struct xi_local *local)
{
	xi_shm_link_ring(((struct xi_shm *)local)->link);
}

static void hang_up(struct xi_local *local)
{
	xi_shm_link_hang_up(((struct xi_shm *)local)->link);
}

static void over(struct xi_local *local, enum xi_local_end how)
{
	struct xi_shm_link *link = ((struct xi_shm *)local)->link;

	link->told = true;
	if (how == XI_LOCAL_DIED)
		xi_conn_lost(
			local->conn, XENIDC_REASON_PEER_DIED, -ECONNRESET,
			"the peer, process %d, has ended without closing the channel; see why, start it again, then "
			"connect again",
			link->pid);
	else if (local->flowing)
		xi_conn_lost(local->conn, XENIDC_REASON_LOST, -ECONNRESET,
			     "the peer, process %d, dropped the connection without closing the channel; connect again",
			     link->pid);
	else
		xi_conn_lost(
			local->conn, XENIDC_REASON_LOST, -ECONNRESET,
			"process %d dropped the connection while it was being made; it may be ending, or have too many "
			"connections: connect again",
			link->pid);
}

static void fini(struct xi_local *local)
{
	struct xi_shm *shm = (struct xi_shm *)local;

	xi_shm_link_leave(shm->link);
	shm->link = NULL;
}

static const struct xi_domain domain = {
	.region_make = make,
	.region_export = export,
	.region_import = import,
	.region_zero = zero,
	.wake = wake,
	.ring = ring,
	.hang_up = hang_up,
	.over = over,
	.fini = fini,
};
#ifdef XI_TESTING
const struct xi_domain *const xi_shm_domain = &domain;
#endif

/* --- Connections */

static int check(const char *rest, char *service, struct xenidc_error *err)
{
	int e = xi_shm_check_name(rest, err);

	if (e == 0)
		service[0] = '\0';
	return e;
}

static int no_socket(int e, struct xenidc_error *err)
{
	return xi_error(
		err, e, XENIDC_REASON_RESOURCE,
		"a socket cannot be made: not enough memory or open files (error %d); raise `ulimit -n`, or use "
		"fewer channels",
		-e);
}

static int dial(struct xi_conn *conn, const char *rest, struct xenidc_error *err)
{
	struct xi_shm *shm = xi_conn_priv(conn);
	xenidc_loop *loop = xi_conn_loop(conn);
	struct sockaddr_un at;
	int fd, e = xi_shm_place(rest, false, &at, err);

	if (e)
		return e;
	fd = xi_os->socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return no_socket(fd, err);
	shm->link = xi_shm_link_new(loop, fd, false);
	if (!shm->link) {
		xi_os->close(fd);
		return no_socket(-ENOMEM, err);
	}
	shm->link->shm = shm;
	shm->link->at = at;
	memcpy(shm->name, rest, strlen(rest) + 1);
	xi_local_start(&shm->local, conn, &domain);
	e = xi_shm_link_dial(shm->link);
	if (e)
		return xi_error(err, e, XENIDC_REASON_LIMIT,
				"no timer is left for connecting; use fewer timers or channels on one loop");
	return 0;
}

static void adopt(struct xi_conn *conn, void *arg)
{
	struct xi_shm *shm = xi_conn_priv(conn);

	shm->link = arg;
	shm->link->shm = shm;
	xi_local_start(&shm->local, conn, &domain);
	xi_shm_link_adopt(shm->link);
}

static void identify(struct xi_conn *conn, struct xenidc_peer *peer)
{
	const struct xi_shm_link *link = ((struct xi_shm *)xi_conn_priv(conn))->link;

	if (link->accepted)
		snprintf(peer->address, sizeof(peer->address), "shm: process %d of user %u", link->pid, link->uid);
	peer->has_uid = link->known;
	peer->uid = link->uid;
	peer->gid = link->gid;
	peer->pid = link->pid;
}

static void hello(struct xi_conn *conn, const void *bytes, uint32_t length)
{
	xi_shm_link_hello(((struct xi_shm *)xi_conn_priv(conn))->link, bytes, length);
}

/* --- Listeners */

struct listener {
	struct xi_listener *handle;
	int socket; /* plus one */
	struct xi_shm_seat seat;
	struct xenidc_watch watch;
	struct xenidc_timer pause;
};

static void on_pause_over(struct xenidc_timer *timer)
{
	struct listener *l = XI_CONTAINER(timer, struct listener, pause);

	(void)xenidc_watch_change(&l->watch, EPOLLIN);
}

/* The connection stays in the queue and the socket ready: without a pause the loop would do nothing else. */
static void pause_accepting(struct listener *l, int e)
{
	xi_log(LOG_WARNING,
	       "connections at %s cannot be accepted (error %d): not enough open files or memory; raise "
	       "`ulimit -n`",
	       l->seat.at.sun_path, -e);
	if (xenidc_timer_start(l->watch.loop, &l->pause, ACCEPT_RETRY, on_pause_over) == 0)
		(void)xenidc_watch_change(&l->watch, 0);
}

static void on_connection(struct xenidc_watch *watch, uint32_t events)
{
	struct listener *l = XI_CONTAINER(watch, struct listener, watch);
	struct xi_listener *listener = l->handle;

	(void)events;
	for (int i = 0; i < ACCEPTS; i++) {
		struct xi_shm_link *link;
		int fd = xi_os->accept(l->socket - 1, NULL, NULL);
		if (fd == -EINTR || fd == -ECONNABORTED)
			continue;
		if (fd < 0 && fd != -EAGAIN)
			pause_accepting(l, fd);
		if (fd < 0)
			return;
		link = xi_shm_link_new(xi_listener_loop(listener), fd, true);
		if (!link)
			xi_os->close(fd);
		else if (!xi_listener_incoming(listener, link))
			xi_shm_link_free(link);
	}
}

static void stop_listening(struct listener *l, bool forked)
{
	xenidc_timer_stop(&l->pause);
	xenidc_watch_stop(&l->watch);
	xi_shm_seat_leave(&l->seat, forked);
	if (!l->socket)
		return;
	xi_os->close(l->socket - 1);
	xi_destroyed(XI_OBJECT_FD);
	l->socket = 0;
}

static int listen_at(struct xi_listener *listener, const char *rest, char *name, struct xenidc_error *err)
{
	struct listener *l = xi_listener_priv(listener);
	int fd = xi_os->socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), e;

	XI_ASSERT(!l->socket);
	if (fd < 0)
		return no_socket(fd, err);
	xi_created(XI_OBJECT_FD);
	l->handle = listener;
	l->socket = fd + 1;
	e = xi_shm_seat_take(&l->seat, rest, fd, err);
	if (e == 0) {
		e = xi_os->listen(fd, BACKLOG);
		if (e == 0)
			e = xenidc_watch_start(xi_listener_loop(listener), &l->watch, fd, EPOLLIN, on_connection);
		if (e)
			no_socket(e, err);
		else /* who comes in can wait for a look; who is connected sleeps on a futex meanwhile */
			xi_loop_watch_lazy(&l->watch, true);
	}
	if (e) {
		stop_listening(l, false);
		return e;
	}
	xi_shm_sweep(&l->seat.at);
	XI_FAILPOINT(shm_listening);
	snprintf(name, XENIDC_ADDRESS_MAX, "shm:%s", rest);
	return 0;
}

static void unlisten(struct xi_listener *listener)
{
	stop_listening(xi_listener_priv(listener), xi_loop_forked(xi_listener_loop(listener)));
}

/* --- Diagnosis */

static void diagnose_place(xenidc_diagnose_line *line, void *user)
{
	struct xenidc_error err = { 0 };
	struct sockaddr_un at;
	char text[XENIDC_ERROR_TEXT_MAX];

	if (xi_shm_place("NAME", false, &at, &err)) {
		line(user, "shm", 2, "sockets for shm: addresses cannot be made or found", err.text);
		return;
	}
	snprintf(text, sizeof(text), "the socket of shm:NAME is %s", at.sun_path);
	line(user, "shm", 0, text, NULL);
}

static void diagnose(xenidc_diagnose_line *line, void *user)
{
	struct xi_shm_link probe = { 0 };
	struct xenidc_error err = { 0 };
	int e;

	diagnose_place(line, user);
	e = xi_shm_region_make(&probe, 4096, &err);
	xi_shm_region_drop(&probe);
	if (e)
		line(user, "shm", 2, "memory to share (sealed memfd) cannot be made", err.text);
	else
		line(user, "shm", 0, "memory to share (sealed memfd) can be made", NULL);
	e = xi_os->pidfd_open(xi_os->getpid());
	if (e >= 0)
		xi_os->close(e);
	if (e < 0)
		line(user, "shm", 1, "this kernel gives no pidfd",
		     "the death of a peer is told as a lost connection; Linux 5.3 or newer tells them apart");
	else
		line(user, "shm", 0, "the death of a peer is told by the kernel (pidfd)", NULL);
}

const struct xi_transport xi_transport_shm = {
	.version = XI_TRANSPORT_VERSION,
	.scheme = "shm",
	.caps = XI_LOCAL_CAPS | XI_CAP_PEER_DEATH | XI_CAP_IDENTITY,
	.conn_size = sizeof(struct xi_shm),
	.listener_size = sizeof(struct listener),
	.check = check,
	.listen = listen_at,
	.unlisten = unlisten,
	.dial = dial,
	.adopt = adopt,
	.identify = identify,
	.hello = hello,
	.quarantine = xi_shm_quarantine,
	.diagnose = diagnose,
	XI_LOCAL_OPS,
};
