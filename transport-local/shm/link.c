/* SPDX-License-Identifier: MIT */
/* What connects two processes: the rendezvous socket and the pidfd; and what stays of it after a connection's end. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "shm.h"
#include "xenidc-core/base/assert.h"
#include "xenidc-core/base/counters.h"
#include "xenidc-core/base/failpoint.h"
#include "xenidc-core/base/limits.h"
#include "xenidc-core/base/log.h"
#include "xenidc-core/base/os.h"
#include "xenidc-core/base/times.h"

/* Headers older than the kernel. */
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* Packets read in one go: a doorbell or two, or the connect messages there can be. */
#define PACKETS 8
/* Descriptors received with one packet; the kernel drops what is beyond, and says so. One is allowed. */
#define RIGHTS 4
/* A listener whose queue is full: when to try again. */
#define QUEUE_FULL_RETRY (5 * XI_MS)

/* Links in quarantine, of all loops of the process. */
static struct xi_list quarantined = { &quarantined, &quarantined };
static bool quarantined_lock;

static void lock(void)
{
	while (__atomic_test_and_set(&quarantined_lock, __ATOMIC_ACQUIRE))
		;
}

static void unlock(void)
{
	__atomic_clear(&quarantined_lock, __ATOMIC_RELEASE);
}

/* --- Making and freeing */

struct xi_shm_link *xi_shm_link_new(xenidc_loop *loop, int socket, bool accepted)
{
	struct xi_shm_link *link = xi_os->alloc(sizeof(*link));

	XI_ASSERT(socket >= 0);
	if (!link)
		return NULL;
	link->loop = loop;
	link->socket = socket + 1;
	link->accepted = accepted;
	xi_list_init(&link->quarantined);
	xi_list_init(&link->member.link);
	xi_created(XI_OBJECT_FD);
	return link;
}

static void stop_watching(struct xi_shm_link *link)
{
	xenidc_timer_stop(&link->timer);
	xenidc_watch_stop(&link->heard);
	xenidc_watch_stop(&link->ended);
}

void xi_shm_link_free(struct xi_shm_link *link)
{
	stop_watching(link);
	xi_shm_region_drop(link);
	if (link->process) {
		xi_os->close(link->process - 1);
		xi_destroyed(XI_OBJECT_FD);
	}
	xi_os->close(link->socket - 1);
	xi_destroyed(XI_OBJECT_FD);
	xi_os->free(link);
}

static void lost(struct xi_shm_link *link, int e, const char *what)
{
	bool resource =
		e == -ENOMEM || e == -ENOBUFS || e == -EMFILE || e == -ENFILE || e == -ETOOMANYREFS || e == -ENOSPC;

	if (link->told)
		return;
	link->told = true;
	if (resource)
		xi_conn_lost(link->shm->local.conn, XENIDC_REASON_RESOURCE, e,
			     "%s failed: this machine or process has not enough memory or open files (error %d); raise "
			     "`ulimit -n`, or use fewer channels",
			     what, -e);
	else
		xi_conn_lost(link->shm->local.conn, XENIDC_REASON_LOST, e, "%s failed (error %d); connect again", what,
			     -e);
}

static void protocol(struct xi_shm_link *link, const char *what)
{
	if (link->told)
		return;
	link->told = true;
	xi_conn_lost(link->shm->local.conn, XENIDC_REASON_PROTOCOL, -EPROTO,
		     "the peer sent %s; the connection was ended; if both sides run current versions, report this",
		     what);
}

/* --- Receiving */

/* Take the descriptors out of what was received. -EPROTO: it has some that are none of ours, or too many; -EMFILE: it
 * had one, but there is no room for it here. */
static int take_rights(struct xi_shm_link *link, struct msghdr *m)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(m);
	bool cut = m->msg_flags & MSG_CTRUNC;
	unsigned n = 0;
	int fds[RIGHTS];

	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
		n = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		XI_ASSERT(n <= RIGHTS);
		memcpy(fds, CMSG_DATA(c), n * sizeof(int));
	}
	/* One, and only while a region is awaited: from the dialler with READY, after it had ours. */
	if (n == 1 && !cut && !link->peer_memfd && !link->peer_base && (!link->accepted || link->lent)) {
		link->peer_memfd = fds[0] + 1;
		xi_created(XI_OBJECT_FD);
		XI_FAILPOINT(shm_descriptor_received);
		return 0;
	}
	for (unsigned i = 0; i < n; i++)
		xi_os->close(fds[i]);
	if (cut && n == 0)
		return -EMFILE;
	return n || cut ? -EPROTO : 0;
}

/* Did it hang up? An empty packet reads as an end, too (unless it brings descriptors). */
static bool hung_up(const struct xi_shm_link *link)
{
	struct pollfd p = { .fd = link->socket - 1, .events = POLLRDHUP };

	return xi_os->poll(&p, 1, 0) > 0 && p.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL);
}

static void end_of_packets(struct xi_shm_link *link)
{
	if (!hung_up(link)) {
		protocol(link, "an empty packet");
		return;
	}
	xenidc_watch_stop(&link->heard);
	link->let_go = true;
	xi_local_gone(&link->shm->local, XI_LOCAL_HUNG_UP);
}

static void packet_arrived(struct xi_shm_link *link, struct msghdr *m, uint32_t length)
{
	struct xi_local *local = &link->shm->local;
	int e = take_rights(link, m);

	if (e == -EMFILE)
		lost(link, e, "taking over the memory of the peer");
	else if (e)
		protocol(link, "descriptors that it must not send");
	else if (m->msg_flags & MSG_TRUNC)
		protocol(link, "a connect message that is too long");
	else if (length == 1)
		xi_local_rang(local);
	else
		xi_conn_hello(local->conn, m->msg_iov->iov_base, length);
}

/* One packet. False: nothing more is to be had now. */
static bool receive(struct xi_shm_link *link)
{
	uint8_t bytes[XI_HELLO_MAX];
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(RIGHTS * sizeof(int))];
	} rights;
	struct iovec v = { .iov_base = bytes, .iov_len = sizeof(bytes) };
	struct msghdr m = {
		.msg_iov = &v, .msg_iovlen = 1, .msg_control = &rights, .msg_controllen = sizeof(rights.space)
	};
	ssize_t n = xi_os->recvmsg(link->socket - 1, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n == -EAGAIN)
		return false;
	/* It was closed with packets of ours unread. What it had sent before can still be read. */
	if (n == -EINTR || (n == -ECONNRESET && !link->reset)) {
		link->reset = n == -ECONNRESET;
		return true;
	}
	if (n < 0)
		lost(link, (int)n, "reading from the socket of the connection");
	else if (n == 0 && !m.msg_controllen)
		end_of_packets(link);
	else
		packet_arrived(link, &m, (uint32_t)n);
	return n > 0 && !link->told && !link->shm->local.over;
}

/* The connection is over: all that is awaited from the socket is that the peer hangs up, too. */
static void await_hang_up(struct xi_shm_link *link, uint32_t events)
{
	if (events & (EPOLLHUP | EPOLLERR)) {
		xenidc_watch_stop(&link->heard);
		link->let_go = true;
	} else if (xenidc_watch_change(&link->heard, 0)) { /* both sides down is told whatever one watches for */
		xenidc_watch_stop(&link->heard);
	}
}

static void on_heard(struct xenidc_watch *watch, uint32_t events)
{
	struct xi_shm_link *link = XI_CONTAINER(watch, struct xi_shm_link, heard);
	struct xi_shm *shm = link->shm;

	if (!shm || shm->local.closed || shm->local.over || link->told) {
		await_hang_up(link, events);
		if (!shm && link->let_go)
			xi_shm_link_leave(link);
		return;
	}
	for (int i = 0; i < PACKETS && receive(link); i++)
		;
}

static void on_ended(struct xenidc_watch *watch, uint32_t events)
{
	struct xi_shm_link *link = XI_CONTAINER(watch, struct xi_shm_link, ended);
	struct xi_shm *shm = link->shm;

	(void)events;
	xenidc_watch_stop(watch);
	link->let_go = true;
	if (!shm) {
		xi_shm_link_leave(link);
		return;
	}
	if (shm->local.closed)
		return;
	/* Connect messages that it sent before are still in the socket. */
	for (int i = 0; i < PACKETS && !shm->local.flowing && link->heard.loop && receive(link); i++)
		;
	xi_local_gone(&shm->local, XI_LOCAL_DIED);
}

/* --- Connecting */

/* Who is there, by the kernel's word; and a handle on its life. */
static void learn_peer(struct xi_shm_link *link)
{
	struct ucred cred;
	socklen_t length = sizeof(cred);
	int fd;

	if (xi_os->getsockopt(link->socket - 1, SOL_SOCKET, SO_PEERCRED, &cred, &length))
		return;
	link->known = true;
	link->pid = cred.pid;
	link->uid = cred.uid;
	link->gid = cred.gid;
	length = sizeof(fd);
	if (xi_os->getsockopt(link->socket - 1, SOL_SOCKET, SO_PEERPIDFD, &fd, &length))
		/* Linux before 6.5. A process of another namespace has number 0 here: then only its end is heard of. */
		fd = cred.pid > 0 ? xi_os->pidfd_open(cred.pid) : -ESRCH;
	if (fd < 0)
		return;
	link->process = fd + 1;
	xi_created(XI_OBJECT_FD);
}

/* Listen to the peer from now on. */
static int start_watching(struct xi_shm_link *link)
{
	int e = xenidc_watch_start(link->loop, &link->heard, link->socket - 1, EPOLLIN, on_heard);

	learn_peer(link);
	if (e == 0 && link->process)
		e = xenidc_watch_start(link->loop, &link->ended, link->process - 1, EPOLLIN, on_ended);
	return e;
}

static void on_timer(struct xenidc_timer *timer);

static void connect_failed(struct xi_shm_link *link, int e)
{
	struct xi_conn *conn = link->shm->local.conn;
	const char *name = link->shm->name;

	link->told = true;
	if (e == -ENOENT || e == -ECONNREFUSED || e == -ENOTSOCK)
		xi_conn_lost(conn, XENIDC_REASON_UNREACHABLE, -ECONNREFUSED,
			     "nobody listens at shm:%s (socket %s); start the other side first, as the same user", name,
			     link->at.sun_path);
	else if (e == -EACCES || e == -EPERM)
		xi_conn_lost(conn, XENIDC_REASON_PERMISSION, -EACCES,
			     "no permission for shm:%s (socket %s); run both sides as the same user", name,
			     link->at.sun_path);
	else
		lost(link, e, "connecting to the socket");
}

static void try_connect(struct xi_shm_link *link)
{
	int e = xi_os->connect(link->socket - 1, (const struct sockaddr *)&link->at, sizeof(link->at));

	/* Its queue is full: it is alive and busy. How long to go on trying is the core's decision. */
	if (e == -EAGAIN || e == -EINTR)
		e = xenidc_timer_start(link->loop, &link->timer, QUEUE_FULL_RETRY, on_timer);
	else if (e == 0 && (e = start_watching(link)) == 0) {
		XI_FAILPOINT(shm_connected);
		xi_conn_dialled(link->shm->local.conn);
	}
	if (e)
		connect_failed(link, e);
}

static void on_timer(struct xenidc_timer *timer)
{
	struct xi_shm_link *link = XI_CONTAINER(timer, struct xi_shm_link, timer);

	XI_ASSERT(link->shm && !link->shm->local.closed);
	if (link->error)
		lost(link, link->error, "accepting a connection");
	else
		try_connect(link);
}

int xi_shm_link_dial(struct xi_shm_link *link)
{
	return xenidc_timer_start(link->loop, &link->timer, 0, on_timer);
}

void xi_shm_link_adopt(struct xi_shm_link *link)
{
	link->error = start_watching(link);
	if (link->error) {
		xenidc_watch_stop(&link->heard);
		/* If this fails as well, the core's own patience ends it. */
		(void)xenidc_timer_start(link->loop, &link->timer, 0, on_timer);
	}
}

/* --- Sending */

void xi_shm_link_hello(struct xi_shm_link *link, const void *bytes, uint32_t length)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} rights = { .space = { 0 } };
	struct iovec v = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = length };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };
	int fd = link->memfd - 1;
	ssize_t n;

	XI_ASSERT(length > 1 && length <= XI_HELLO_MAX);
	if (link->attach) {
		XI_ASSERT(fd >= 0);
		rights.header = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)),
						  .cmsg_level = SOL_SOCKET,
						  .cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(&rights.header), &fd, sizeof(fd));
		m.msg_control = &rights;
		m.msg_controllen = sizeof(rights.space);
	}
	n = xi_os->sendmsg(link->socket - 1, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	/* A peer that is gone is noticed where one listens to it, together with what it said before. */
	if (n < 0 && n != -EPIPE && n != -ECONNRESET)
		lost(link, (int)n, "sending a connect message");
	XI_FAILPOINT(shm_hello_sent);
	if (n < 0 || !link->attach)
		return;
	XI_FAILPOINT(shm_descriptor_sent);
	link->attach = false;
	link->lent = true;
	xi_os->close(fd);
	xi_destroyed(XI_OBJECT_FD);
	link->memfd = 0;
}

void xi_shm_link_ring(struct xi_shm_link *link)
{
	uint8_t byte = 0;
	struct iovec v = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };

	/* Full: there is enough in it to wake the peer. Gone: that is noticed elsewhere. */
	(void)xi_os->sendmsg(link->socket - 1, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* --- The end */

void xi_shm_link_hang_up(struct xi_shm_link *link)
{
	xenidc_timer_stop(&link->timer);
	xi_os->shutdown(link->socket - 1, SHUT_WR);
	if (link->heard.loop)
		await_hang_up(link, 0);
}

static void unlist(struct xi_shm_link *link)
{
	if (xi_list_empty(&link->quarantined))
		return;
	lock();
	xi_list_remove(&link->quarantined);
	unlock();
	xi_loop_member_remove(&link->member);
	xi_destroyed(XI_OBJECT_QUARANTINE);
}

static void member_destroy(struct xi_member *m, bool forked)
{
	struct xi_shm_link *link = XI_CONTAINER(m, struct xi_shm_link, member);

	(void)forked;
	unlist(link);
	xi_shm_link_free(link);
}

/* Is there proof that the peer sees our region no more, or that it never did? */
static bool peer_let_go(const struct xi_shm_link *link)
{
	struct pollfd p[2] = { { .fd = link->socket - 1 }, { .fd = link->process - 1, .events = POLLIN } };

	if (!link->lent || link->let_go)
		return true;
	return xi_os->poll(p, 2, 0) > 0 && (p[0].revents & (POLLHUP | POLLERR) || p[1].revents & POLLIN);
}

void xi_shm_link_leave(struct xi_shm_link *link)
{
	link->shm = NULL;
	if (xi_loop_forked(link->loop) || peer_let_go(link)) {
		unlist(link);
		xi_shm_link_free(link);
		return;
	}
	XI_ASSERT(xi_list_empty(&link->quarantined));
	xi_shm_region_drop(link); /* `bytes` stays: the peer may still have them */
	if (!link->heard.loop)
		(void)xenidc_watch_start(link->loop, &link->heard, link->socket - 1, 0, on_heard);
	xi_created(XI_OBJECT_QUARANTINE);
	link->member.destroy = member_destroy;
	xi_loop_member_add(link->loop, &link->member);
	lock();
	xi_list_append(&quarantined, &link->quarantined);
	unlock();
}

void xi_shm_quarantine(const void *owner, uint64_t *bytes, uint32_t *regions)
{
	*bytes = 0;
	*regions = 0;
	lock();
	for (struct xi_list *at = quarantined.next; at != &quarantined; at = at->next) {
		const struct xi_shm_link *link = XI_CONTAINER(at, struct xi_shm_link, quarantined);
		if (link->owner != owner)
			continue;
		*bytes += link->bytes;
		*regions += 1;
	}
	unlock();
}
