/* SPDX-License-Identifier: MIT */
/* The table of OS calls, as Linux has them. */
#define _GNU_SOURCE
#include "xenidc-core/base/os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/magic.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "os_uring.h"
#include "xenidc-core/base/assert.h"
#include "xenidc-core/base/times.h"

const struct xi_os *xi_os = &xi_os_linux;

static int check(int r)
{
	return r < 0 ? -errno : r;
}

static ssize_t check_size(ssize_t r)
{
	return r < 0 ? -errno : r;
}

static void *os_alloc(size_t size)
{
	XI_ASSERT(size > 0);
	return calloc(1, size);
}

static void os_free(void *p)
{
	free(p);
}

static uint64_t clock_ns(clockid_t id)
{
	struct timespec t;
	int r = clock_gettime(id, &t);
	XI_ASSERT(r == 0);
	return (uint64_t)t.tv_sec * XI_SECOND + (uint64_t)t.tv_nsec;
}

static uint64_t os_clock(void)
{
	return clock_ns(CLOCK_BOOTTIME);
}

static void os_entropy(void *to, size_t length)
{
	uint8_t *p = to;
	while (length) {
		ssize_t n = getrandom(p, length, 0);
		if (n < 0 && errno == EINTR)
			continue;
		/* Nothing that we could do without secrets would be right. */
		XI_ASSERT(n > 0);
		p += n;
		length -= (size_t)n;
	}
}

/* A page that the kernel zeroes in a child: asking whether we are one costs a load instead of a system call. */
static int os_getpid(void)
{
	static _Atomic(_Atomic int *) cache;
	_Atomic int *page = atomic_load_explicit(&cache, memory_order_acquire);
	if (!page) {
		_Atomic int *none = NULL;
		size_t size = (size_t)sysconf(_SC_PAGESIZE);
		page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (page == MAP_FAILED)
			return getpid();
		bool ok = madvise(page, size, MADV_WIPEONFORK) == 0;
		if (!ok || !atomic_compare_exchange_strong(&cache, &none, page)) {
			munmap(page, size);
			return getpid();
		}
	}
	int pid = atomic_load_explicit(page, memory_order_relaxed);
	if (!pid) {
		pid = getpid();
		atomic_store_explicit(page, pid, memory_order_relaxed);
	}
	return pid;
}

static void *os_mmap(void *at, size_t length, int prot, int flags, int fd, off_t offset, int *ret_err)
{
	void *p = mmap(at, length, prot, flags, fd, offset);
	if (p != MAP_FAILED)
		return p;
	*ret_err = -errno;
	return NULL;
}

static int os_munmap(void *at, size_t length)
{
	return check(munmap(at, length));
}

static int os_memfd_create(const char *name, unsigned flags)
{
	return check(memfd_create(name, flags));
}

static int os_ftruncate(int fd, off_t length)
{
	return check(ftruncate(fd, length));
}

static int os_fcntl(int fd, int command, long arg)
{
	return check(fcntl(fd, command, arg));
}

static int os_fallocate(int fd, off_t length)
{
	return check(fallocate(fd, 0, 0, length));
}

static int os_fstat(int fd, struct stat *ret)
{
	return check(fstat(fd, ret));
}

static int os_fstat_size(int fd, uint64_t *ret_size, bool *ret_memfd)
{
	struct stat st;
	struct statfs fs;
	if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
		return -errno;
	*ret_size = (uint64_t)st.st_size;
	*ret_memfd = S_ISREG(st.st_mode) && st.st_nlink == 0 && fs.f_type == TMPFS_MAGIC;
	return 0;
}

static int os_socket(int family, int type, int protocol)
{
	return check(socket(family, type, protocol));
}

static int os_socketpair(int family, int type, int protocol, int fds[2])
{
	return check(socketpair(family, type, protocol, fds));
}

static int os_bind(int fd, const struct sockaddr *address, socklen_t length)
{
	return check(bind(fd, address, length));
}

static int os_listen(int fd, int backlog)
{
	return check(listen(fd, backlog));
}

static int os_accept(int fd, struct sockaddr *address, socklen_t *length)
{
	return check(accept4(fd, address, length, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

static int os_connect(int fd, const struct sockaddr *address, socklen_t length)
{
	return check(connect(fd, address, length));
}

static ssize_t os_sendmsg(int fd, const struct msghdr *m, int flags)
{
	return check_size(sendmsg(fd, m, flags));
}

static ssize_t os_recvmsg(int fd, struct msghdr *m, int flags)
{
	return check_size(recvmsg(fd, m, flags));
}

static ssize_t os_recv(int fd, void *to, size_t length, int flags)
{
	return check_size(recv(fd, to, length, flags));
}

static int os_shutdown(int fd, int how)
{
	return check(shutdown(fd, how));
}

static int os_setsockopt(int fd, int level, int name, const void *value, socklen_t length)
{
	return check(setsockopt(fd, level, name, value, length));
}

static int os_getsockopt(int fd, int level, int name, void *value, socklen_t *length)
{
	return check(getsockopt(fd, level, name, value, length));
}

static int os_getsockname(int fd, struct sockaddr *address, socklen_t *length)
{
	return check(getsockname(fd, address, length));
}

static int os_getpeername(int fd, struct sockaddr *address, socklen_t *length)
{
	return check(getpeername(fd, address, length));
}

static int os_getaddrinfo(const char *host, const char *port, int flags, struct addrinfo **ret)
{
	struct addrinfo hints = { .ai_flags = flags, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
	return getaddrinfo(host, port, &hints, ret);
}

static void os_freeaddrinfo(struct addrinfo *list)
{
	freeaddrinfo(list);
}

/* On Linux the descriptor is gone also when close() says EINTR. */
static int os_close(int fd)
{
	return check(close(fd));
}

static ssize_t os_read(int fd, void *to, size_t length)
{
	return check_size(read(fd, to, length));
}

static ssize_t os_write(int fd, const void *from, size_t length)
{
	return check_size(write(fd, from, length));
}

static int os_eventfd(unsigned initial, int flags)
{
	return check(eventfd(initial, flags));
}

static int os_epoll_create(void)
{
	return check(epoll_create1(EPOLL_CLOEXEC));
}

static int os_epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
	return check(epoll_ctl(epoll, op, fd, event));
}

static struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec){ .tv_sec = (time_t)(ns / XI_SECOND), .tv_nsec = (long)(ns % XI_SECOND) };
}

static int os_epoll_wait(int epoll, struct epoll_event *events, int max, int64_t timeout_ns)
{
	struct timespec t = to_timespec(timeout_ns > 0 ? (uint64_t)timeout_ns : 0);
	if (timeout_ns <= 0)
		return check(epoll_wait(epoll, events, max, timeout_ns < 0 ? -1 : 0));
	int r = epoll_pwait2(epoll, events, max, &t, NULL);
	if (r >= 0 || errno != ENOSYS)
		return check(r);
	/* Linux before 5.11: in milliseconds, rounded up so that a timer is due after the wait. */
	uint64_t ms = ((uint64_t)timeout_ns + XI_MS - 1) / XI_MS;
	return check(epoll_wait(epoll, events, max, ms > 1000000 ? 1000000 : (int)ms));
}

static int os_poll(struct pollfd *fds, nfds_t n, int64_t timeout_ns)
{
	struct timespec t = to_timespec(timeout_ns > 0 ? (uint64_t)timeout_ns : 0);
	return check(ppoll(fds, n, timeout_ns < 0 ? NULL : &t, NULL));
}

/* The words lie in memory shared between processes, so none of these is FUTEX_PRIVATE. */
static int os_futex_wait(const struct xi_futex_wait *words, unsigned n, int64_t timeout_ns)
{
	struct futex_waitv waiters[XI_FUTEX_WAIT_MAX];
	struct timespec t = to_timespec(timeout_ns > 0 ? (uint64_t)timeout_ns : 0);
	struct timespec *limit = timeout_ns < 0 ? NULL : &t;
	XI_ASSERT(n > 0 && n <= XI_FUTEX_WAIT_MAX);
	if (n == 1) {
		long r = syscall(SYS_futex, words[0].word, FUTEX_WAIT, words[0].value, limit, NULL, 0);
		return check((int)r);
	}
	for (unsigned i = 0; i < n; i++)
		waiters[i] = (struct futex_waitv){ .val = words[i].value,
						   .uaddr = (uintptr_t)words[i].word,
						   .flags = FUTEX_32 };
	if (limit) /* this one wants a point in time */
		t = to_timespec((uint64_t)timeout_ns + clock_ns(CLOCK_MONOTONIC));
	return check((int)syscall(SYS_futex_waitv, waiters, n, 0, limit, CLOCK_MONOTONIC));
}

static int os_futex_wake(uint32_t *word, int count)
{
	return check((int)syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0));
}

static int os_pidfd_open(pid_t pid)
{
	return check((int)syscall(SYS_pidfd_open, pid, 0));
}

static int os_mkdir(const char *path, mode_t mode)
{
	return check(mkdir(path, mode));
}

static int os_unlink(const char *path)
{
	return check(unlink(path));
}

static int os_rename(const char *from, const char *to)
{
	return check(rename(from, to));
}

static int os_chmod(const char *path, mode_t mode)
{
	return check(chmod(path, mode));
}

static int os_open(const char *path, int flags, mode_t mode)
{
	return check(open(path, flags, mode));
}

static int os_flock(int fd, int operation)
{
	return check(flock(fd, operation));
}

static int os_list(const char *directory, bool (*each)(void *user, const char *name), void *user)
{
	DIR *dir = opendir(directory);
	struct dirent *entry;

	if (!dir)
		return -errno;
	do
		entry = readdir(dir);
	while (entry && each(user, entry->d_name));
	closedir(dir);
	return 0;
}

static const char *os_getenv(const char *name)
{
	return getenv(name);
}

static uid_t os_geteuid(void)
{
	return geteuid();
}

static int os_cpus(void)
{
	/* Not those of our own affinity mask: who is pinned to one core has the peer on another one. */
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	return n > 0 ? (int)n : 1;
}

static uint64_t os_memlock_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
		return UINT64_MAX;
	return limit.rlim_cur;
}

const struct xi_os xi_os_linux = {
	.alloc = os_alloc,
	.free = os_free,
	.clock = os_clock,
	.entropy = os_entropy,
	.getpid = os_getpid,
	.mmap = os_mmap,
	.munmap = os_munmap,
	.memfd_create = os_memfd_create,
	.ftruncate = os_ftruncate,
	.fcntl = os_fcntl,
	.fallocate = os_fallocate,
	.fstat = os_fstat,
	.fstat_size = os_fstat_size,
	.socket = os_socket,
	.socketpair = os_socketpair,
	.bind = os_bind,
	.listen = os_listen,
	.accept = os_accept,
	.connect = os_connect,
	.sendmsg = os_sendmsg,
	.recvmsg = os_recvmsg,
	.recv = os_recv,
	.shutdown = os_shutdown,
	.batch_new = xi_uring_new,
	.batch_free = xi_uring_free,
	.batch_run = xi_uring_run,
	.setsockopt = os_setsockopt,
	.getsockopt = os_getsockopt,
	.getsockname = os_getsockname,
	.getpeername = os_getpeername,
	.getaddrinfo = os_getaddrinfo,
	.freeaddrinfo = os_freeaddrinfo,
	.close = os_close,
	.read = os_read,
	.write = os_write,
	.eventfd = os_eventfd,
	.epoll_create = os_epoll_create,
	.epoll_ctl = os_epoll_ctl,
	.epoll_wait = os_epoll_wait,
	.poll = os_poll,
	.futex_wait = os_futex_wait,
	.futex_wake = os_futex_wake,
	.pidfd_open = os_pidfd_open,
	.mkdir = os_mkdir,
	.unlink = os_unlink,
	.rename = os_rename,
	.chmod = os_chmod,
	.open = os_open,
	.flock = os_flock,
	.list = os_list,
	.getenv = os_getenv,
	.geteuid = os_geteuid,
	.cpus = os_cpus,
	.memlock_limit = os_memlock_limit,
};
