/* SPDX-License-Identifier: MIT */
/* What TCP over loopback can do at best: both ends spin, nothing but send and recv. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tools/bench/bench.h"
#include "tools/common/clock.h"

#define BULK_READ (1u << 20)

/* Both sides go through as many buffers as the measurement does: what the caches hold makes a difference. */
struct pair {
	int fd[2];
	size_t size, slots;
	_Atomic uint64_t *received;
	uint8_t *data;
};

static uint8_t *slot(const struct pair *p, size_t number)
{
	return p->data + number % p->slots * p->size;
}

static void tune(int fd, const char *cc)
{
	const int one = 1;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	/* Not to be had on every host; then the default holds, for the probe as for the library. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, cc, (socklen_t)strlen(cc));
}

/* Connect to ourselves before the child exists: the backlog holds the connection. */
static bool pair_open(struct pair *p, const char *cc)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(at);
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	p->fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	p->fd[1] = -1;
	if (l >= 0 && p->fd[0] >= 0 && !bind(l, (struct sockaddr *)&at, sizeof(at)) && !listen(l, 1) &&
	    !getsockname(l, (struct sockaddr *)&at, &length) && !connect(p->fd[0], (struct sockaddr *)&at, length))
		p->fd[1] = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	(void)close(l);
	tune(p->fd[0], cc);
	tune(p->fd[1], cc);
	return p->fd[1] >= 0;
}

/* Memory that is really there, not the one page of zeros. False: there is none. */
static bool pair_data(struct pair *p)
{
	p->data = malloc(p->slots * p->size);
	if (p->data)
		memset(p->data, 1, p->slots * p->size);
	return p->data != NULL;
}

static void pair_close(struct pair *p)
{
	(void)close(p->fd[0]);
	(void)close(p->fd[1]);
}

static bool send_all(int fd, const uint8_t *data, size_t size)
{
	while (size) {
		ssize_t n = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return false;
		if (n > 0) {
			data += n;
			size -= (size_t)n;
		}
	}
	return true;
}

static bool recv_all(int fd, uint8_t *data, size_t size)
{
	while (size) {
		ssize_t n = recv(fd, data, size, MSG_DONTWAIT);
		if (!n || (n < 0 && errno != EAGAIN && errno != EINTR))
			return false;
		if (n > 0) {
			data += n;
			size -= (size_t)n;
		}
	}
	return true;
}

static void latency_child(void *arg)
{
	struct pair *p = arg;

	for (size_t n = 0; recv_all(p->fd[1], slot(p, n), p->size) && send_all(p->fd[1], slot(p, n + 1), p->size);)
		n += 2;
}

double xi_probe_tcp_latency(const struct xi_bench *b)
{
	static struct xi_hist h;
	struct pair p = { .size = b->size, .slots = 2 * b->slots };
	uint64_t end = UINT64_MAX, start = 0, now = 0;
	size_t n = 0;
	int pid = -1;

	xi_hist_clear(&h);
	if (pair_data(&p) && b->cpu[0] != b->cpu[1] && pair_open(&p, b->cc)) {
		pid = xi_probe_begin(b, latency_child, &p);
		for (; pid > 0 && now < end; start = now, n += 2) {
			if (!send_all(p.fd[0], slot(&p, n), p.size) || !recv_all(p.fd[0], slot(&p, n + 1), p.size))
				break;
			now = xi_ticks();
			if (start)
				xi_hist_add(&h, now - start);
			else
				end = now + (uint64_t)(b->probe_ms * 1e6 / xi_ns_per_tick);
		}
		xi_probe_end(pid);
		pair_close(&p);
	}
	free(p.data);
	return xi_hist_quantile(&h, 0.5) * xi_ns_per_tick;
}

static void bulk_child(void *arg)
{
	struct pair *p = arg;
	size_t at = 0, all = p->size * p->slots;
	uint8_t *to = calloc(p->slots, p->size);

	while (to) {
		ssize_t n = recv(p->fd[1], to + at, all - at < BULK_READ ? all - at : BULK_READ, MSG_DONTWAIT);
		if (!n || (n < 0 && errno != EAGAIN && errno != EINTR))
			break;
		if (n > 0) {
			at = (at + (size_t)n) % all;
			atomic_fetch_add_explicit(p->received, (uint64_t)n, memory_order_relaxed);
		}
	}
}

/* Send for `probe_ms`, after half of that as warm-up; take the rate at which the child receives, a window at a time. */
static void bulk_windows(const struct xi_bench *b, struct pair *p, struct xi_hist *rate)
{
	uint64_t warm = xi_now_ns() + b->probe_ms * 500000ull, end = warm + b->probe_ms * 1000000ull;
	uint64_t start = 0, from = 0, now = 0, received;
	size_t n = 0;

	/* At least three windows, however long they get. */
	while ((now < end || rate->count < 3) && send_all(p->fd[0], slot(p, n++), p->size)) {
		now = xi_now_ns();
		received = atomic_load_explicit(p->received, memory_order_relaxed);
		if (now < warm || (start && (double)(now - start) < XI_BENCH_WINDOW_NS))
			continue;
		if (start)
			xi_hist_add(rate, (uint64_t)((double)(received - from) * 1e9 / (double)(now - start)));
		start = now;
		from = received;
	}
}

double xi_probe_tcp_bulk(const struct xi_bench *b)
{
	static struct xi_hist rate;
	struct pair p = { .size = b->size, .slots = b->slots, .received = xi_probe_memory(4096) };
	int pid;

	xi_hist_clear(&rate);
	if (pair_data(&p) && p.received && b->cpu[0] != b->cpu[1] && pair_open(&p, b->cc)) {
		pid = xi_probe_begin(b, bulk_child, &p);
		if (pid > 0)
			bulk_windows(b, &p, &rate);
		xi_probe_end(pid);
		pair_close(&p);
	}
	xi_probe_memory_free((void *)p.received, 4096);
	free(p.data);
	return xi_hist_quantile(&rate, 0.5);
}
