/* SPDX-License-Identifier: MIT */
/* TCP: the pipe below the stream engine, the options of sockets, the end of a connection, the table of ops. */
#define _GNU_SOURCE
#include "tcp.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "xenidc-core/base/assert.h"
#include "xenidc-core/base/counters.h"
#include "xenidc-core/base/list.h"
#include "xenidc-core/base/os.h"
#include "xenidc-core/base/times.h"
#include "xenidc-core/loop.h"

/*
 * What the kernel may hold of ours that is not on its way yet: two DATA frames. A CANCEL waits behind no more than
 * that, however much bulk was submitted before it, and a socket never runs dry between two looks.
 */
#define UNSENT_MAX (2 * XI_BULK_MAX)
/* On a crowded loop a connection is quiet after so many looks in vain: each costs a system call. */
#define QUIET_LOOKS 2
/* Where a sleep or a look at the descriptors is about to tell, so many looks are left out; not all, since other
 * connections may keep the loop from either for a while. */
#define LEFT_OUT_MAX 16

int xi_tcp_socket(int family)
{
	int fd = xi_os->socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd >= 0)
		xi_created(XI_OBJECT_FD);
	return fd;
}

void xi_tcp_close(int *sock)
{
	if (!*sock)
		return;
	(void)xi_os->close(*sock - 1);
	xi_destroyed(XI_OBJECT_FD);
	*sock = 0;
}

/* ------------------------------------------------------------------------------------------------------------------
 * The pipe
 */
static struct tcp_conn *tcp_of(struct xi_stream *s)
{
	return XI_CONTAINER(s, struct tcp_conn, stream);
}

static ssize_t pipe_send(struct xi_stream *s, const struct iovec *iov, unsigned n)
{
	struct tcp_conn *tcp = tcp_of(s);
	struct msghdr m = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = n };
	ssize_t r;

	XI_DASSERT(tcp->sock);
	if (tcp->has_sent)
		r = tcp->sent;
	else
		do
			r = xi_os->sendmsg(tcp->sock - 1, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
		while (r == -EINTR);
	tcp->has_sent = false;
	return r == -ENOMEM ? -ENOBUFS : r;
}

static ssize_t pipe_recv(struct xi_stream *s, const struct iovec *iov, unsigned n)
{
	struct tcp_conn *tcp = tcp_of(s);
	struct msghdr m = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = n };
	ssize_t r;

	XI_DASSERT(tcp->sock);
	if (tcp->broken)
		return tcp->broken;
	if (tcp->has_received)
		r = tcp->received;
	else
		do
			r = n == 1 ? xi_os->recv(tcp->sock - 1, iov->iov_base, iov->iov_len, MSG_DONTWAIT)
				   : xi_os->recvmsg(tcp->sock - 1, &m, MSG_DONTWAIT);
		while (r == -EINTR);
	tcp->has_received = false;
	/* Short of memory for a moment: what was sent is still there. */
	return r == -ENOMEM || r == -ENOBUFS ? -EAGAIN : r;
}

/*
 * What arrives is found by looking, as long as that is done; room to send, and what comes to a quiet connection, is
 * told by the descriptor.
 */
static void set_watch(struct tcp_conn *tcp)
{
	bool for_room = tcp->stream.waiting;

	/* Stopped by close(), or never started for want of memory: then nothing is awaited any more. */
	if (!tcp->watch.loop)
		return;
	(void)xenidc_watch_change(&tcp->watch, for_room ? POLLIN | POLLOUT : POLLIN);
	xi_loop_watch_lazy(&tcp->watch, !for_room && !tcp->quiet);
}

static void pipe_wait(struct xi_stream *s, bool for_room)
{
	XI_DASSERT(s->waiting == for_room);
	set_watch(tcp_of(s));
}

static void pipe_over(struct xi_stream *s, int error)
{
	struct tcp_conn *tcp = tcp_of(s);

	tcp->ended = true;
	if (error == 0)
		xi_conn_lost(tcp->conn, XENIDC_REASON_LOST, -ECONNRESET,
			     "the connection to %s was closed from there without a word: the process there has ended, "
			     "or was "
			     "killed; see to it and connect again",
			     tcp->peer);
	else if (error == -ETIMEDOUT)
		xi_conn_lost(tcp->conn, XENIDC_REASON_LOST, error,
			     "the connection to %s was lost: nothing that was sent arrived any more; the network is "
			     "interrupted, or the machine there is off",
			     tcp->peer);
	else if (error == -ECONNRESET || error == -EPIPE)
		xi_conn_lost(
			tcp->conn, XENIDC_REASON_LOST, error,
			"the connection to %s was reset: the process there has ended, or a firewall between forgot "
			"the connection; connect again",
			tcp->peer);
	else
		xi_conn_lost(tcp->conn, XENIDC_REASON_LOST, error,
			     "the connection to %s was lost: %s; check the network", tcp->peer,
			     strerrordesc_np(-error));
}

static const struct xi_pipe pipe = {
	.send = pipe_send,
	.recv = pipe_recv,
	.wait = pipe_wait,
	.over = pipe_over,
};

/* ------------------------------------------------------------------------------------------------------------------
 * A connected socket
 */

/* Both ends on this machine: the peer's address is ours as well. */
static bool is_local(int fd)
{
	union tcp_socket_address here = { 0 }, there = { 0 };
	socklen_t here_length = sizeof(here), there_length = sizeof(there);

	if (xi_os->getsockname(fd, &here.any, &here_length) < 0 ||
	    xi_os->getpeername(fd, &there.any, &there_length) < 0)
		return false;
	xi_tcp_set_port(&here, 0);
	xi_tcp_set_port(&there, 0);
	return here_length == there_length && memcmp(&here, &there, here_length) == 0;
}

/*
 * A congestion control that paces what it sends (bbr, where it is the default) halves the speed within one machine,
 * where no path has to be probed.
 */
static void choose_congestion_control(int fd)
{
	static const char plain[] = "reno"; /* every kernel has it, and everybody may choose it */
	char name[16] = "";
	socklen_t length = sizeof(name);

	if (xi_os->getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &length) == 0 && !strncmp(name, "bbr", 3) &&
	    is_local(fd))
		(void)xi_os->setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, plain, sizeof(plain) - 1);
}

static void set_options(struct tcp_conn *tcp)
{
	uint64_t dead = xi_conn_times(tcp->conn)->dead_ns;
	const unsigned ms = (unsigned)(dead / XI_MS ? dead / XI_MS : 1), unsent = UNSENT_MAX;
	const int on = 1, fd = tcp->sock - 1;

	/* All of them make it better; none is needed. */
	(void)xi_os->setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void)xi_os->setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
	(void)xi_os->setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
	choose_congestion_control(fd);
}

static void conn_ready(struct xenidc_watch *watch, uint32_t events)
{
	struct tcp_conn *tcp = XI_CONTAINER(watch, struct tcp_conn, watch);

	if (events & POLLOUT)
		xi_stream_writable(&tcp->stream);
	if (!(events & ~(uint32_t)POLLOUT))
		return;
	if (tcp->batch) {
		xi_tcp_batch_receive(tcp);
		return;
	}
	if (tcp->quiet) {
		tcp->quiet = false;
		set_watch(tcp);
	}
	tcp->looks = 0;
	(void)xi_stream_process(tcp->conn, XI_PROCESS_BUDGET);
}

void xi_tcp_take(struct tcp_conn *tcp, int fd)
{
	union tcp_socket_address there = { 0 };
	socklen_t length = sizeof(there);

	XI_ASSERT(!tcp->sock);
	tcp->sock = fd + 1;
	tcp->linger = xi_tcp_linger_new();
	snprintf(tcp->peer, sizeof(tcp->peer), "?");
	if (xi_os->getpeername(fd, &there.any, &length) == 0)
		xi_tcp_text(&there, tcp->peer);
	set_options(tcp);
	tcp->broken = xenidc_watch_start(xi_conn_loop(tcp->conn), &tcp->watch, fd, POLLIN, conn_ready);
	set_watch(tcp);
	xi_stream_start(&tcp->stream, tcp->conn, &pipe);
}

static void tcp_adopt(struct xi_conn *conn, void *arg)
{
	struct tcp_conn *tcp = xi_conn_priv(conn);
	int *sock = arg;

	tcp->conn = conn;
	xi_tcp_take(tcp, *sock - 1);
	*sock = 0;
}

static void tcp_identify(struct xi_conn *conn, struct xenidc_peer *peer)
{
	const struct tcp_conn *tcp = xi_conn_priv(conn);

	snprintf(peer->address, sizeof(peer->address), "%s", tcp->peer);
}

static int tcp_reserve(struct xi_conn *conn, const struct xi_layout *tx, const struct xi_layout *rx, uint32_t flags,
		       uint8_t **tx_base, uint8_t **rx_base, struct xenidc_error *err)
{
	struct tcp_conn *tcp = xi_conn_priv(conn);
	int r = xi_stream_reserve(conn, tx, rx, flags, tx_base, rx_base, err);

	if (r)
		return r;
	/* Once more: an accept hook may have chosen other times than the listener's. */
	set_options(tcp);
	xi_tcp_batch_join(tcp);
	tcp->quiet = tcp->batch;
	set_watch(tcp);
	return 0;
}

static void tcp_flush(struct xi_conn *conn)
{
	struct tcp_conn *tcp = xi_conn_priv(conn);

	if (tcp->batch && xi_loop_in_step(xi_conn_loop(conn)))
		xi_tcp_batch_send(tcp);
	else
		xi_stream_flush(conn);
}

static unsigned tcp_process(struct xi_conn *conn, unsigned budget)
{
	struct tcp_conn *tcp = xi_conn_priv(conn);
	unsigned n;

	if (tcp->quiet && !xi_stream_busy(&tcp->stream))
		return 0;
	if (!xi_loop_looks(xi_conn_loop(conn)) && ++tcp->left_out < LEFT_OUT_MAX && !xi_stream_busy(&tcp->stream))
		return 0;
	tcp->left_out = 0;
	n = xi_stream_process(conn, budget);
	if (n) {
		tcp->looks = 0;
	} else if (++tcp->looks >= QUIET_LOOKS && !tcp->quiet && tcp->sock && xi_loop_crowded(xi_conn_loop(conn))) {
		tcp->quiet = true;
		set_watch(tcp);
	}
	return n;
}

static int tcp_arm(struct xi_conn *conn, bool futex_ok, struct xi_wait *wait)
{
	const struct tcp_conn *tcp = xi_conn_priv(conn);

	return tcp->broken && !tcp->ended ? XI_BUSY : xi_stream_arm(conn, futex_ok, wait);
}

static int tcp_close(struct xi_conn *conn)
{
	struct tcp_conn *tcp = xi_conn_priv(conn);

	xi_tcp_dial_stop(&tcp->dial);
	if (!tcp->sock)
		return 0;
	xenidc_watch_stop(&tcp->watch);
	xi_tcp_batch_leave(tcp);
	if (xi_loop_forked(xi_conn_loop(conn))) {
		tcp->ended = true;
		return 0;
	}
	(void)xi_stream_close(&tcp->stream);
	if (!tcp->ended)
		(void)xi_os->shutdown(tcp->sock - 1, SHUT_WR);
	return 0;
}

static void tcp_fini(struct xi_conn *conn)
{
	struct tcp_conn *tcp = xi_conn_priv(conn);

	xi_stream_fini(&tcp->stream);
	if (tcp->sock && !tcp->ended && tcp->linger)
		xi_tcp_linger(tcp->linger, xi_conn_loop(conn), &tcp->sock);
	else
		xi_os->free(tcp->linger);
	xi_tcp_close(&tcp->sock);
}

/* ------------------------------------------------------------------------------------------------------------------
 * Diagnosis
 */
static bool can_bind(int family)
{
	struct tcp_target targets[2];
	struct tcp_name name = { .port = 0 };
	int fd = xi_tcp_socket(family), sock = fd + 1, r = -EAFNOSUPPORT;

	if (fd < 0)
		return false;
	for (int i = 0; i < xi_tcp_resolve(&name, true, targets, NULL); i++)
		if (targets[i].address.any.sa_family == family)
			r = xi_os->bind(fd, &targets[i].address.any, targets[i].length);
	xi_tcp_close(&sock);
	return r == 0;
}

static void tcp_diagnose(xenidc_diagnose_line *line, void *user)
{
	bool four = can_bind(AF_INET), six = can_bind(AF_INET6);

	xi_tcp_batch_diagnose(line, user);
	if (four && six)
		line(user, "tcp", 0, "IPv4 and IPv6 can be used", NULL);
	else if (four)
		line(user, "tcp", 1, "IPv4 can be used, IPv6 cannot",
		     "only needed for peers that have no IPv4 address; it may be switched off (sysctl "
		     "net.ipv6.conf.all.disable_ipv6)");
	else if (six)
		line(user, "tcp", 1, "IPv6 can be used, IPv4 cannot",
		     "only needed for peers that have no IPv6 address");
	else
		line(user, "tcp", 2, "no loopback address can be used, neither 127.0.0.1 nor ::1",
		     "bring the loopback interface up: `ip link set lo up`");
}

const struct xi_transport xi_transport_tcp = {
	.version = XI_TRANSPORT_VERSION,
	.scheme = "tcp",
	.caps = XI_CAP_STREAM | XI_CAP_DIGEST,
	.conn_size = sizeof(struct tcp_conn),
	.listener_size = sizeof(struct tcp_listener),
	.check = xi_tcp_check,
	.listen = xi_tcp_listen,
	.unlisten = xi_tcp_unlisten,
	.dial = xi_tcp_dial,
	.adopt = tcp_adopt,
	.identify = tcp_identify,
	.hello = xi_stream_hello,
	.reserve = tcp_reserve,
	.export_region = xi_stream_export_region,
	.import_region = xi_stream_import_region,
	.tx_begin = xi_stream_tx_begin,
	.tx_commit = xi_stream_tx_commit,
	.flush = tcp_flush,
	.tx_unsent = xi_stream_tx_unsent,
	.retract = xi_stream_retract,
	.drop_segs = xi_stream_drop_segs,
	.process = tcp_process,
	.arm = tcp_arm,
	.disarm = xi_stream_disarm,
	.close = tcp_close,
	.fini = tcp_fini,
	.stats = xi_stream_stats,
	.diagnose = tcp_diagnose,
};
