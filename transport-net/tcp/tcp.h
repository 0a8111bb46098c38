/* SPDX-License-Identifier: MIT */
/*
 * TCP, shared by the files of this folder and by nobody else.
 *
 *	tcp.c      the table of ops, the pipe below the stream engine, options of sockets, the end of a connection
 *	address.c  the part of an address after "tcp:", and what it resolves to
 *	dial.c     connecting: all addresses of a name, one after the other, the slow ones side by side
 *	listen.c   listening and accepting
 *	linger.c   sockets that outlive their connection until the peer has everything
 *	uring.c    many connections served with one system call
 *	words.c    what errors of sockets mean, and what to do about them
 */
#ifndef XI_NET_TCP_H
#define XI_NET_TCP_H

#include <netinet/in.h>
#include <sys/socket.h>

#include <xenidc/transport.h>
#include <xenidc/xenidc.h>

#include "transport-net/stream.h"
#include "xenidc-core/loop.h"

/* Addresses of one host name that are used; more are left out. */
#define TCP_TARGETS_MAX 8u
/* An attempt that has no answer by then is joined by one to the next address. */
#define TCP_STAGGER (250 * (uint64_t)1000000)
#define TCP_HOST_MAX 255u
/* "[address%zone]:port" */
#define TCP_TEXT_MAX 80u

/* --- address.c */
struct tcp_name {
	char host[TCP_HOST_MAX + 1]; /* without brackets; "": none was given; "*" */
	bool numeric;                /* an IPv4 or IPv6 address */
	bool six;                    /* an IPv6 address, to be written in brackets */
	uint16_t port;
	char service[XENIDC_SERVICE_MAX + 1];
};
union tcp_socket_address {
	struct sockaddr any;
	struct sockaddr_in four;
	struct sockaddr_in6 six;
};
struct tcp_target {
	union tcp_socket_address address;
	socklen_t length;
};
int xi_tcp_parse(const char *rest, struct tcp_name *ret, struct xenidc_error *err);
int xi_tcp_check(const char *rest, char *service, struct xenidc_error *err);
/* All addresses of a name, at most TCP_TARGETS_MAX; returns how many, or a negative errno with `err`. May ask a name
 * server, unless the name is numeric. */
int xi_tcp_resolve(const struct tcp_name *name, bool to_listen, struct tcp_target *ret, struct xenidc_error *err);
void xi_tcp_set_port(union tcp_socket_address *address, uint16_t port);
uint16_t xi_tcp_get_port(const union tcp_socket_address *address);
/* "192.0.2.1:47615", "[::1]:47615" */
void xi_tcp_text(const union tcp_socket_address *address, char text[TCP_TEXT_MAX]);
/* "HOST:PORT" as a person wrote it. */
void xi_tcp_name_text(const struct tcp_name *name, uint16_t port, char *text, size_t size);

/* --- dial.c */
struct tcp_attempt {
	struct xenidc_watch watch;
	struct tcp_conn *conn;
	int sock; /* descriptor + 1; 0: none */
	unsigned target;
};
struct tcp_dial {
	struct tcp_name name;
	struct tcp_target targets[TCP_TARGETS_MAX];
	unsigned count, next; /* targets, and the first that was not tried yet */
	unsigned open;        /* attempts under way */
	struct tcp_attempt attempts[TCP_TARGETS_MAX];
	struct xenidc_timer timer;
	uint64_t give_up; /* on the loop's clock */
	int error;        /* the most telling one so far, */
	unsigned blamed;  /* and whose it was */
};
int xi_tcp_dial(struct xi_conn *conn, const char *rest, struct xenidc_error *err);
void xi_tcp_dial_stop(struct tcp_dial *dial);

/* --- tcp.c */
struct tcp_conn {
	struct xi_stream stream; /* first, see stream.h */
	struct xi_conn *conn;
	int sock; /* descriptor + 1; 0: none */
	struct xenidc_watch watch;
	struct tcp_linger *linger; /* for the end; NULL: there was no memory for it, the end is abrupt */
	int broken;                /* the socket cannot be used: why, negative */
	unsigned looks;            /* in vain, in a row */
	unsigned left_out;         /* looks, in a row */
	bool quiet;                /* not looked at until its descriptor says that something is there */
	bool ended;                /* the peer will send no more, or the connection has failed */
	/* On a crowded loop: */
	struct tcp_batch *batch;
	struct xi_list receiver, sender;
	bool has_sent, has_received; /* results of the calls that the stream is about to make */
	ssize_t sent, received;
	struct tcp_dial dial;
	char peer[TCP_TEXT_MAX];
};
/* A connected socket becomes the connection. */
void xi_tcp_take(struct tcp_conn *tcp, int fd);
/* Our socket: non-blocking, close-on-exec. Negative errno. */
int xi_tcp_socket(int family);
void xi_tcp_close(int *sock);

/* --- uring.c. Joining comes to nothing on a loop that is not crowded, or where io_uring is not allowed. */
void xi_tcp_batch_join(struct tcp_conn *tcp);
void xi_tcp_batch_leave(struct tcp_conn *tcp);
/* Receive, send, later in this step. */
void xi_tcp_batch_receive(struct tcp_conn *tcp);
void xi_tcp_batch_send(struct tcp_conn *tcp);
void xi_tcp_batch_diagnose(xenidc_diagnose_line *line, void *user);

/* --- listen.c */
struct tcp_door {
	struct xenidc_watch watch;
	struct xi_listener *listener;
	int sock;
	int family;
};
struct tcp_listener {
	struct tcp_door doors[TCP_TARGETS_MAX];
	unsigned count;
	struct xenidc_timer pause;
};
int xi_tcp_listen(struct xi_listener *listener, const char *rest, char *name, struct xenidc_error *err);
void xi_tcp_unlisten(struct xi_listener *listener);

/* --- linger.c */
/* Made with the connection, since nothing may allocate at its end. NULL: out of memory. */
struct tcp_linger *xi_tcp_linger_new(void);
/* Takes the descriptor over and frees itself: when the peer has closed its side, after XI_CLOSE, or with the loop. */
void xi_tcp_linger(struct tcp_linger *l, xenidc_loop *loop, int *sock);

/* --- words.c */
/* What `error` of a connect means for a person. */
enum xenidc_reason xi_tcp_connect_words(int error, const char *where, char *text, size_t size);
enum xenidc_reason xi_tcp_listen_words(int error, const char *where, uint16_t port, char *text, size_t size);

#endif
