/* SPDX-License-Identifier: MIT */
#include "fault_os.h"

#include <errno.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include "check.h"
#include "xenidc-core/base/os.h"

/* Every call: name, the usual error, and whether a fault of "any call" includes it (a full machine can refuse it). */
#define CALLS(X)                                                                                                       \
	X(alloc, ENOMEM, 1)                                                                                            \
	X(free, 0, 0)                                                                                                  \
	X(clock, 0, 0)                                                                                                 \
	X(entropy, 0, 0)                                                                                               \
	X(getpid, 0, 0)                                                                                                \
	X(mmap, ENOMEM, 1)                                                                                             \
	X(munmap, ENOMEM, 0)                                                                                           \
	X(memfd_create, EMFILE, 1)                                                                                     \
	X(ftruncate, ENOSPC, 1)                                                                                        \
	X(fallocate, ENOSPC, 1)                                                                                        \
	X(fstat, EIO, 1)                                                                                               \
	X(fcntl, EPERM, 1)                                                                                             \
	X(fstat_size, EIO, 1)                                                                                          \
	X(socket, EMFILE, 1)                                                                                           \
	X(socketpair, EMFILE, 1)                                                                                       \
	X(bind, EADDRINUSE, 1)                                                                                         \
	X(listen, EADDRINUSE, 1)                                                                                       \
	X(accept, EMFILE, 1)                                                                                           \
	X(connect, ECONNREFUSED, 1)                                                                                    \
	X(shutdown, ENOTCONN, 1)                                                                                       \
	X(batch_new, EPERM, 1)                                                                                         \
	X(batch_free, 0, 0)                                                                                            \
	X(batch_run, 0, 0)                                                                                             \
	X(sendmsg, ENOBUFS, 1)                                                                                         \
	X(recvmsg, ECONNRESET, 1)                                                                                      \
	X(recv, ECONNRESET, 1)                                                                                         \
	X(setsockopt, ENOBUFS, 1)                                                                                      \
	X(getsockopt, ENOBUFS, 1)                                                                                      \
	X(getsockname, ENOBUFS, 1)                                                                                     \
	X(getpeername, ENOTCONN, 1)                                                                                    \
	X(getaddrinfo, EAI_MEMORY, 1)                                                                                  \
	X(freeaddrinfo, 0, 0)                                                                                          \
	X(close, EIO, 0)                                                                                               \
	X(read, EIO, 0)                                                                                                \
	X(write, EIO, 0)                                                                                               \
	X(eventfd, EMFILE, 1)                                                                                          \
	X(epoll_create, EMFILE, 1)                                                                                     \
	X(epoll_ctl, ENOMEM, 1)                                                                                        \
	X(epoll_wait, EINTR, 0)                                                                                        \
	X(poll, EINTR, 0)                                                                                              \
	X(futex_wait, EINTR, 0)                                                                                        \
	X(futex_wake, EFAULT, 0)                                                                                       \
	X(pidfd_open, EMFILE, 1)                                                                                       \
	X(mkdir, ENOSPC, 1)                                                                                            \
	X(unlink, EACCES, 1)                                                                                           \
	X(rename, EACCES, 1)                                                                                           \
	X(chmod, EPERM, 1)                                                                                             \
	X(open, EMFILE, 1)                                                                                             \
	X(flock, EWOULDBLOCK, 1)                                                                                       \
	X(list, EACCES, 1)                                                                                             \
	X(getenv, 0, 0)                                                                                                \
	X(geteuid, 0, 0)                                                                                               \
	X(cpus, 0, 0)                                                                                                  \
	X(memlock_limit, 0, 0)

enum call {
#define CALL_ENUM(name, error, any) CALL_##name,
	CALLS(CALL_ENUM)
#undef CALL_ENUM
		CALL_COUNT
};

static const struct {
	const char *name;
	int error;
	int any;
} calls[] = {
#define CALL_ROW(name, error, any) { #name, error, any },
	CALLS(CALL_ROW)
#undef CALL_ROW
};
_Static_assert(CALL_COUNT == sizeof(struct xi_os) / sizeof(void *), "a call of struct xi_os is missing in CALLS");

static const struct xi_os *below;
static _Atomic uint64_t counts[CALL_COUNT];
/* The fault: calls of that kind from number `from` on, below `to`, fail. */
static _Atomic int fault_call = -1; /* -1 none, CALL_COUNT any */
static _Atomic int64_t fault_passes;
static int64_t fault_from, fault_to;
static int fault_error;
static _Atomic bool fault_paused;
static _Atomic unsigned fault_fired;

/* The error that this call has to give, or 0. */
static int pass(enum call call)
{
	atomic_fetch_add(&counts[call], 1);
	int which = atomic_load(&fault_call);
	if (which != (int)call && !(which == CALL_COUNT && calls[call].any))
		return 0;
	if (atomic_load(&fault_paused))
		return 0;
	int64_t number = atomic_fetch_add(&fault_passes, 1);
	if (number < fault_from || number >= fault_to)
		return 0;
	atomic_fetch_add(&fault_fired, 1);
	return fault_error ? fault_error : calls[call].error;
}

#define WRAP(type, name, parameters, arguments)                                                                        \
	static type wrap_##name parameters                                                                             \
	{                                                                                                              \
		int error = pass(CALL_##name);                                                                         \
		return error ? -error : below->name arguments;                                                         \
	}
#define WRAP_SAFE(type, name, parameters, arguments)                                                                   \
	static type wrap_##name parameters                                                                             \
	{                                                                                                              \
		pass(CALL_##name);                                                                                     \
		return below->name arguments;                                                                          \
	}

static void *wrap_alloc(size_t size)
{
	return pass(CALL_alloc) ? NULL : below->alloc(size);
}

static void wrap_batch_free(struct xi_batch *batch)
{
	pass(CALL_batch_free);
	below->batch_free(batch);
}

static void wrap_batch_run(struct xi_batch *batch, struct xi_batch_call *list, unsigned n)
{
	pass(CALL_batch_run);
	below->batch_run(batch, list, n);
}

/* Taking a descriptor out of the set cannot fail: it needs nothing. */
static int wrap_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
	int error = op == EPOLL_CTL_DEL ? 0 : pass(CALL_epoll_ctl);
	return error ? -error : below->epoll_ctl(epoll, op, fd, event);
}

static void wrap_free(void *p)
{
	pass(CALL_free);
	below->free(p);
}

static void wrap_entropy(void *to, size_t length)
{
	pass(CALL_entropy);
	below->entropy(to, length);
}

static void wrap_freeaddrinfo(struct addrinfo *list)
{
	pass(CALL_freeaddrinfo);
	below->freeaddrinfo(list);
}

static void *wrap_mmap(void *at, size_t length, int prot, int flags, int fd, off_t offset, int *ret_err)
{
	int error = pass(CALL_mmap);
	if (!error)
		return below->mmap(at, length, prot, flags, fd, offset, ret_err);
	*ret_err = -error;
	return NULL;
}

/* EAI_* are negative already. */
static int wrap_getaddrinfo(const char *host, const char *port, int flags, struct addrinfo **ret)
{
	int error = pass(CALL_getaddrinfo);
	return error ? error : below->getaddrinfo(host, port, flags, ret);
}

WRAP_SAFE(uint64_t, clock, (void), ())
WRAP_SAFE(int, getpid, (void), ())
WRAP_SAFE(const char *, getenv, (const char *name), (name))
WRAP_SAFE(uid_t, geteuid, (void), ())
WRAP_SAFE(int, cpus, (void), ())
WRAP_SAFE(uint64_t, memlock_limit, (void), ())
WRAP(int, munmap, (void *at, size_t length), (at, length))
WRAP(int, memfd_create, (const char *name, unsigned flags), (name, flags))
WRAP(int, ftruncate, (int fd, off_t length), (fd, length))
WRAP(int, fallocate, (int fd, off_t length), (fd, length))
WRAP(int, fstat, (int fd, struct stat *ret), (fd, ret))
WRAP(int, fcntl, (int fd, int command, long arg), (fd, command, arg))
WRAP(int, fstat_size, (int fd, uint64_t *ret_size, bool *ret_memfd), (fd, ret_size, ret_memfd))
WRAP(int, socket, (int family, int type, int protocol), (family, type, protocol))
WRAP(int, socketpair, (int family, int type, int protocol, int fds[2]), (family, type, protocol, fds))
WRAP(int, bind, (int fd, const struct sockaddr *address, socklen_t length), (fd, address, length))
WRAP(int, listen, (int fd, int backlog), (fd, backlog))
WRAP(int, accept, (int fd, struct sockaddr *address, socklen_t *length), (fd, address, length))
WRAP(int, connect, (int fd, const struct sockaddr *address, socklen_t length), (fd, address, length))
WRAP(int, shutdown, (int fd, int how), (fd, how))
WRAP(int, batch_new, (unsigned most, struct xi_batch **ret), (most, ret))
WRAP(ssize_t, sendmsg, (int fd, const struct msghdr *m, int flags), (fd, m, flags))
WRAP(ssize_t, recvmsg, (int fd, struct msghdr *m, int flags), (fd, m, flags))
WRAP(ssize_t, recv, (int fd, void *to, size_t length, int flags), (fd, to, length, flags))
WRAP(int, setsockopt, (int fd, int level, int name, const void *value, socklen_t length),
     (fd, level, name, value, length))
WRAP(int, getsockopt, (int fd, int level, int name, void *value, socklen_t *length), (fd, level, name, value, length))
WRAP(int, getsockname, (int fd, struct sockaddr *address, socklen_t *length), (fd, address, length))
WRAP(int, getpeername, (int fd, struct sockaddr *address, socklen_t *length), (fd, address, length))
WRAP(int, close, (int fd), (fd))
WRAP(ssize_t, read, (int fd, void *to, size_t length), (fd, to, length))
WRAP(ssize_t, write, (int fd, const void *from, size_t length), (fd, from, length))
WRAP(int, eventfd, (unsigned initial, int flags), (initial, flags))
WRAP(int, epoll_create, (void), ())
WRAP(int, epoll_wait, (int epoll, struct epoll_event *events, int max, int64_t timeout_ns),
     (epoll, events, max, timeout_ns))
WRAP(int, poll, (struct pollfd * fds, nfds_t n, int64_t timeout_ns), (fds, n, timeout_ns))
WRAP(int, futex_wait, (const struct xi_futex_wait *words, unsigned n, int64_t timeout_ns), (words, n, timeout_ns))
WRAP(int, futex_wake, (uint32_t * word, int count), (word, count))
WRAP(int, pidfd_open, (pid_t pid), (pid))
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode))
WRAP(int, unlink, (const char *path), (path))
WRAP(int, rename, (const char *from, const char *to), (from, to))
WRAP(int, chmod, (const char *path, mode_t mode), (path, mode))
WRAP(int, open, (const char *path, int flags, mode_t mode), (path, flags, mode))
WRAP(int, flock, (int fd, int operation), (fd, operation))
WRAP(int, list, (const char *directory, bool (*each)(void *user, const char *name), void *user),
     (directory, each, user))

static const struct xi_os wrapped = {
#define CALL_WRAPPED(name, error, any) .name = wrap_##name,
	CALLS(CALL_WRAPPED)
#undef CALL_WRAPPED
};

static int find(const char *name)
{
	for (int i = 0; i < CALL_COUNT; i++)
		if (!strcmp(calls[i].name, name))
			return i;
	check_failed(__FILE__, __LINE__, "there is no OS call '%s'", name);
}

void fault_os_install(void)
{
	CHECK(xi_os != &wrapped);
	fault_os_clear();
	fault_os_pause(false);
	for (int i = 0; i < CALL_COUNT; i++)
		atomic_store(&counts[i], 0);
	below = xi_os;
	xi_os = &wrapped;
}

void fault_os_remove(void)
{
	CHECK(xi_os == &wrapped);
	fault_os_clear();
	xi_os = below;
}

void fault_os_set(struct fault fault)
{
	int call = fault.call ? find(fault.call) : CALL_COUNT;
	CHECK(call == CALL_COUNT || calls[call].error || fault.error);
	fault_os_clear();
	fault_from = fault.countdown;
	fault_to = fault.repeat ? fault_from + fault.repeat : INT64_MAX;
	fault_error = fault.error;
	atomic_store(&fault_passes, 0);
	atomic_store(&fault_fired, 0);
	atomic_store(&fault_call, call);
}

void fault_os_clear(void)
{
	atomic_store(&fault_call, -1);
}

void fault_os_pause(bool paused)
{
	atomic_store(&fault_paused, paused);
}

unsigned fault_os_fired(void)
{
	return atomic_load(&fault_fired);
}

uint64_t fault_os_calls(const char *call)
{
	return atomic_load(&counts[find(call)]);
}

uint64_t fault_os_allocations(void)
{
	return fault_os_calls("alloc") + fault_os_calls("mmap") + fault_os_calls("memfd_create");
}
