/* SPDX-License-Identifier: MIT */
/* Probes between two cores that need no network and no xenidc. */
#define _GNU_SOURCE
#include "tools/bench/probe.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/bench/bench.h"
#include "tools/bench/pattern.h"
#include "tools/common/clock.h"

/* Two lines, far enough apart that the prefetcher of neighbouring lines leaves them alone. */
struct lines {
	_Alignas(256) _Atomic uint32_t there;
	_Alignas(256) _Atomic uint32_t back;
	_Alignas(256) int fd_there, fd_back;
	size_t size, slots;
	_Alignas(4096) uint8_t data[];
};

int xi_probe_begin(const struct xi_bench *b, xi_probe_child *fn, void *arg)
{
	pid_t parent = getpid();
	pid_t pid = fork();

	if (pid)
		return pid;
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() == parent && xi_pin(b->cpu[1]))
		fn(arg);
	_exit(1);
}

void xi_probe_end(int pid)
{
	if (pid <= 0)
		return;
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
}

void *xi_probe_memory(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

void xi_probe_memory_free(void *memory, size_t size)
{
	if (memory)
		(void)munmap(memory, size);
}

/* Ticks until which a probe takes samples, once its child has answered for the first time. */
static uint64_t probe_deadline(const struct xi_bench *b)
{
	return xi_ticks() + (uint64_t)(b->probe_ms * 1e6 / xi_ns_per_tick);
}

static double median_ns(const struct xi_hist *h, double per_sample)
{
	return xi_hist_quantile(h, 0.5) * xi_ns_per_tick / per_sample;
}

/* ------------------------------------------------------------------------------------------------------------------ */

static void line_child(void *arg)
{
	struct lines *s = arg;

	for (uint32_t n = 1;; n++) {
		while (atomic_load_explicit(&s->there, memory_order_acquire) != n)
			;
		atomic_store_explicit(&s->back, n, memory_order_release);
	}
}

double xi_probe_line(const struct xi_bench *b)
{
	static struct xi_hist h;
	struct lines *s = xi_probe_memory(sizeof(*s));
	int pid = s && b->cpu[0] != b->cpu[1] ? xi_probe_begin(b, line_child, s) : -1;
	uint64_t end = UINT64_MAX, last = 0, now;
	uint32_t n = 0;

	xi_hist_clear(&h);
	while (pid > 0 && last < end) {
		/* 32 round trips a sample, so that the clock is none of them. */
		for (int i = 0; i < 32; i++) {
			atomic_store_explicit(&s->there, ++n, memory_order_release);
			while (atomic_load_explicit(&s->back, memory_order_acquire) != n)
				;
		}
		now = xi_ticks();
		if (last)
			xi_hist_add(&h, now - last);
		else
			end = probe_deadline(b);
		last = now;
	}
	xi_probe_end(pid);
	xi_probe_memory_free(s, sizeof(*s));
	return median_ns(&h, 32);
}

/* ------------------------------------------------------------------------------------------------------------------ */

static void copy_child(void *arg)
{
	struct lines *s = arg;

	for (uint32_t n = 1;; n++) {
		xi_pattern_fill(s->data + n % s->slots * s->size, s->size, n, XI_VERIFY_FULL);
		atomic_store_explicit(&s->back, n, memory_order_release);
		while (atomic_load_explicit(&s->there, memory_order_acquire) != n)
			;
	}
}

double xi_probe_copy(const struct xi_bench *b)
{
	static struct xi_hist h;
	size_t stride = (b->size + 4095) / 4096 * 4096, bytes = sizeof(struct lines) + stride * b->slots;
	struct lines *s = xi_probe_memory(bytes);
	uint8_t *to = aligned_alloc(4096, stride * b->slots);
	uint64_t end = UINT64_MAX, start, now = 0;
	int pid = -1;

	xi_hist_clear(&h);
	if (s && to && b->cpu[0] != b->cpu[1]) {
		s->size = stride;
		s->slots = b->slots;
		memset(to, 1, stride * b->slots);
		pid = xi_probe_begin(b, copy_child, s);
	}
	for (uint32_t n = 1; pid > 0 && now < end; n++) {
		while (atomic_load_explicit(&s->back, memory_order_acquire) != n)
			;
		start = xi_ticks();
		if (n == 1)
			end = probe_deadline(b);
		memcpy(to + n % b->slots * stride, s->data + n % b->slots * stride, b->size);
		/* The compiler must not move or drop the copy. */
		__asm__ volatile("" : : "r"(to) : "memory");
		now = xi_ticks();
		xi_hist_add(&h, now - start);
		atomic_store_explicit(&s->there, n, memory_order_release);
	}
	xi_probe_end(pid);
	free(to);
	xi_probe_memory_free(s, bytes);
	return median_ns(&h, 1);
}

/* ------------------------------------------------------------------------------------------------------------------ */

static void futex_wait(_Atomic uint32_t *word, uint32_t seen)
{
	(void)syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
	(void)syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void futex_child(void *arg)
{
	struct lines *s = arg;

	for (uint32_t n = 1;; n++) {
		while (atomic_load(&s->there) != n)
			futex_wait(&s->there, n - 1);
		atomic_store(&s->back, n);
		futex_wake(&s->back);
	}
}

double xi_probe_futex(const struct xi_bench *b)
{
	static struct xi_hist h;
	struct lines *s = xi_probe_memory(sizeof(*s));
	int pid = s ? xi_probe_begin(b, futex_child, s) : -1;
	uint64_t end = UINT64_MAX, start = 0, now = 0;

	xi_hist_clear(&h);
	for (uint32_t n = 1; pid > 0 && now < end; n++, start = now) {
		atomic_store(&s->there, n);
		futex_wake(&s->there);
		while (atomic_load(&s->back) != n)
			futex_wait(&s->back, n - 1);
		now = xi_ticks();
		if (start)
			xi_hist_add(&h, now - start);
		else
			end = probe_deadline(b);
	}
	xi_probe_end(pid);
	xi_probe_memory_free(s, sizeof(*s));
	return median_ns(&h, 1);
}

/* ------------------------------------------------------------------------------------------------------------------ */

static int epoll_on(int fd)
{
	struct epoll_event event = { .events = EPOLLIN };
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	if (epoll >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) {
		(void)close(epoll);
		return -1;
	}
	return epoll;
}

/* Wait as a loop with other descriptors has to, take the event. False: it does not work at all. */
static bool eventfd_take(int epoll, int fd)
{
	struct epoll_event event;
	uint64_t value;

	do {
		if (epoll_wait(epoll, &event, 1, -1) < 0 && errno != EINTR)
			return false;
		if (read(fd, &value, sizeof(value)) == sizeof(value))
			return true;
	} while (errno == EAGAIN || errno == EINTR);
	return false;
}

static bool eventfd_signal(int fd)
{
	const uint64_t one = 1;

	return write(fd, &one, sizeof(one)) == sizeof(one);
}

static void eventfd_child(void *arg)
{
	struct lines *s = arg;
	int epoll = epoll_on(s->fd_there);

	while (epoll >= 0 && eventfd_take(epoll, s->fd_there) && eventfd_signal(s->fd_back))
		;
}

double xi_probe_eventfd(const struct xi_bench *b)
{
	static struct xi_hist h;
	struct lines s = { .fd_there = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
			   .fd_back = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
	int epoll = epoll_on(s.fd_back), pid = epoll >= 0 ? xi_probe_begin(b, eventfd_child, &s) : -1;
	uint64_t end = UINT64_MAX, start = 0, now = 0;

	xi_hist_clear(&h);
	for (; pid > 0 && now < end; start = now) {
		if (!eventfd_signal(s.fd_there) || !eventfd_take(epoll, s.fd_back))
			break;
		now = xi_ticks();
		if (start)
			xi_hist_add(&h, now - start);
		else
			end = probe_deadline(b);
	}
	xi_probe_end(pid);
	(void)close(epoll);
	(void)close(s.fd_there);
	(void)close(s.fd_back);
	return median_ns(&h, 1);
}
