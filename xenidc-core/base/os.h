/* SPDX-License-Identifier: MIT */
/*
 * The table of OS calls. Everything of the library that enters the kernel or allocates goes through it, so that a test
 * can make the k-th call of a kind fail, count calls, or replace the machine altogether (the simulator).
 * Conventions: as the system calls of the same name, but failure is a negative errno instead of -1.
 */
#ifndef XI_BASE_OS_H
#define XI_BASE_OS_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

struct addrinfo;
struct stat;
struct xi_futex_wait { /* one of several words to sleep on */
	const uint32_t *word;
	uint32_t value;
};
#define XI_FUTEX_WAIT_MAX 128 /* FUTEX_WAITV_MAX of the kernel */

/* Many sendmsg() and recvmsg() in one go (io_uring). */
struct xi_batch;
struct xi_batch_call {
	int fd;
	bool send;
	struct msghdr message;
	ssize_t result; /* as of the call; XI_BATCH_NOT_RUN: it was not made */
};
#define XI_BATCH_NOT_RUN ((ssize_t)INT32_MIN)

struct xi_os {
	void *(*alloc)(size_t size); /* zeroed; NULL */
	void (*free)(void *p);
	uint64_t (*clock)(void); /* CLOCK_BOOTTIME, ns */
	void (*entropy)(void *to, size_t length);
	int (*getpid)(void); /* cached; changes after fork */

	void *(*mmap)(void *at, size_t length, int prot, int flags, int fd, off_t offset, int *ret_err); /* NULL */
	int (*munmap)(void *at, size_t length);
	int (*memfd_create)(const char *name, unsigned flags);
	int (*ftruncate)(int fd, off_t length);
	int (*fcntl)(int fd, int command, long arg);
	int (*fallocate)(int fd,
			 off_t length); /* from 0; memory that cannot be had is told now, not by a signal later */
	int (*fstat)(int fd, struct stat *ret);
	int (*fstat_size)(int fd, uint64_t *ret_size, bool *ret_memfd); /* memfd: on the kernel's tmpfs, no name */

	int (*socket)(int family, int type, int protocol);
	int (*socketpair)(int family, int type, int protocol, int fds[2]);
	int (*bind)(int fd, const struct sockaddr *address, socklen_t length);
	int (*listen)(int fd, int backlog);
	int (*accept)(int fd, struct sockaddr *address, socklen_t *length); /* SOCK_NONBLOCK | SOCK_CLOEXEC */
	int (*connect)(int fd, const struct sockaddr *address, socklen_t length);
	ssize_t (*sendmsg)(int fd, const struct msghdr *m, int flags);
	ssize_t (*recvmsg)(int fd, struct msghdr *m, int flags);
	ssize_t (*recv)(int fd, void *to, size_t length, int flags);
	int (*shutdown)(int fd, int how);
	int (*batch_new)(unsigned most, struct xi_batch **ret); /* -ENOSYS, -EPERM: not possible, or forbidden here */
	void (*batch_free)(struct xi_batch *batch);
	/* Make up to `most` calls, none of which waits, in any order; all are over on return. Fills in `result`. */
	void (*batch_run)(struct xi_batch *batch, struct xi_batch_call *calls, unsigned n);
	int (*setsockopt)(int fd, int level, int name, const void *value, socklen_t length);
	int (*getsockopt)(int fd, int level, int name, void *value, socklen_t *length);
	int (*getsockname)(int fd, struct sockaddr *address, socklen_t *length);
	int (*getpeername)(int fd, struct sockaddr *address, socklen_t *length);
	int (*getaddrinfo)(const char *host, const char *port, int flags, struct addrinfo **ret); /* EAI_*, blocks */
	void (*freeaddrinfo)(struct addrinfo *list);

	int (*close)(int fd);
	ssize_t (*read)(int fd, void *to, size_t length);
	ssize_t (*write)(int fd, const void *from, size_t length);
	int (*eventfd)(unsigned initial, int flags);
	int (*epoll_create)(void);
	int (*epoll_ctl)(int epoll, int op, int fd, struct epoll_event *event);
	int (*epoll_wait)(int epoll, struct epoll_event *events, int max, int64_t timeout_ns);
	int (*poll)(struct pollfd *fds, nfds_t n, int64_t timeout_ns);
	int (*futex_wait)(const struct xi_futex_wait *words, unsigned n, int64_t timeout_ns); /* -EAGAIN, -ETIMEDOUT */
	int (*futex_wake)(uint32_t *word, int count);
	int (*pidfd_open)(pid_t pid);
	int (*mkdir)(const char *path, mode_t mode);
	int (*unlink)(const char *path);
	int (*rename)(const char *from, const char *to);
	int (*chmod)(const char *path, mode_t mode);
	int (*open)(const char *path, int flags, mode_t mode);
	int (*flock)(int fd, int operation);
	/* Call `each` with the name of each file in a directory, until it says false. 0, or negative; allocates. */
	int (*list)(const char *directory, bool (*each)(void *user, const char *name), void *user);
	const char *(*getenv)(const char *name);
	uid_t (*geteuid)(void);
	int (*cpus)(void);               /* online, whether or not we may use them all */
	uint64_t (*memlock_limit)(void); /* RLIMIT_MEMLOCK, ~0 for none */
};

/* The table in use: the real one, until a test replaces it before anything else is called. */
extern const struct xi_os *xi_os;
extern const struct xi_os xi_os_linux;

#endif
