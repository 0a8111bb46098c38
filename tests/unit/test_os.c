/* SPDX-License-Identifier: MIT */
/* The table for Linux where it does more than one system call, and the table of faults in front of it. */
#define _GNU_SOURCE
#include "tests/lib/check.h"
#include "tests/lib/fault_os.h"
#include "xenidc-core/base/os.h"
#include "xenidc-core/base/times.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

static void test_alloc(void)
{
	char *p = xi_os->alloc(100);
	CHECK(p);
	for (int i = 0; i < 100; i++)
		CHECK_EQ(p[i], 0);
	xi_os->free(p);
	xi_os->free(NULL);
}

static void test_clock(void)
{
	uint64_t a = xi_os->clock(), b = check_now(), c = xi_os->clock();
	CHECK(a <= b && b <= c);
}

static void test_entropy(void)
{
	uint8_t a[300] = { 0 }, b[300] = { 0 };
	xi_os->entropy(a, sizeof(a));
	xi_os->entropy(b, sizeof(b));
	CHECK(memcmp(a, b, sizeof(a)) != 0);
	CHECK(memcmp(a + 280, (uint8_t[20]){ 0 }, 20) != 0);
}

static void test_getpid(void)
{
	CHECK_EQ(xi_os->getpid(), getpid());
	CHECK_EQ(xi_os->getpid(), getpid());
	pid_t pid = check_fork();
	if (!pid) {
		CHECK_EQ(xi_os->getpid(), getpid());
		pid = check_fork();
		if (!pid) {
			CHECK_EQ(xi_os->getpid(), getpid());
			_exit(0);
		}
		CHECK_EQ(check_wait(pid), 0);
		_exit(0);
	}
	CHECK_EQ(check_wait(pid), 0);
	CHECK_EQ(xi_os->getpid(), getpid());
}

static void test_memory(void)
{
	int err = 0;
	uint64_t size;
	bool memfd;
	int fd = xi_os->memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	CHECK_OP(fd, >=, 0);
	CHECK_EQ(xi_os->ftruncate(fd, 8192), 0);
	CHECK_EQ(xi_os->fstat_size(fd, &size, &memfd), 0);
	CHECK_EQ(size, 8192);
	CHECK(memfd);
	CHECK_EQ(xi_os->fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	CHECK_EQ(xi_os->ftruncate(fd, 4096), -EPERM);
	char *p = xi_os->mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0, &err);
	CHECK(p);
	p[8191] = 1;
	CHECK_EQ(xi_os->munmap(p, 8192), 0);
	CHECK(!xi_os->mmap(NULL, 0, PROT_READ, MAP_SHARED, fd, 0, &err));
	CHECK_EQ(err, -EINVAL);
	CHECK_EQ(xi_os->close(fd), 0);
	CHECK_EQ(xi_os->fstat_size(fd, &size, &memfd), -EBADF);
	/* A file that has a name, or lies on a disk, is none. */
	fd = xi_os->open("/proc/self/exe", O_RDONLY | O_CLOEXEC, 0);
	CHECK_OP(fd, >=, 0);
	CHECK_EQ(xi_os->fstat_size(fd, &size, &memfd), 0);
	CHECK(!memfd);
	xi_os->close(fd);
}

static void test_epoll_times(void)
{
	struct epoll_event e = { .events = EPOLLIN };
	int epoll = xi_os->epoll_create();
	int event = xi_os->eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	CHECK_EQ(xi_os->epoll_ctl(epoll, EPOLL_CTL_ADD, event, &e), 0);
	CHECK_EQ(xi_os->epoll_wait(epoll, &e, 1, 0), 0);
	uint64_t start = check_now();
	CHECK_EQ(xi_os->epoll_wait(epoll, &e, 1, 300000), 0);
	uint64_t took = check_now() - start;
	CHECK_OP(took, >=, 300000u);
	struct pollfd p = { .fd = event, .events = POLLIN };
	start = check_now();
	CHECK_EQ(xi_os->poll(&p, 1, 300000), 0);
	CHECK_OP(check_now() - start, >=, 300000u);
	CHECK_EQ(xi_os->write(event, &(uint64_t){ 1 }, 8), 8);
	CHECK_EQ(xi_os->epoll_wait(epoll, &e, 1, -1), 1);
	CHECK_EQ(xi_os->poll(&p, 1, -1), 1);
	xi_os->close(event);
	xi_os->close(epoll);
}

static uint32_t words[XI_FUTEX_WAIT_MAX];

static void *change_last(void *n)
{
	uint32_t *word = &words[*(unsigned *)n - 1];
	__atomic_store_n(word, 1, __ATOMIC_SEQ_CST);
	/* It may not sleep yet; then the changed value keeps it from doing so. */
	CHECK_OP(xi_os->futex_wake(word, 1), >=, 0);
	return NULL;
}

static void test_futex(void)
{
	static const unsigned sizes[] = { 1, 2, XI_FUTEX_WAIT_MAX };
	struct xi_futex_wait wait[XI_FUTEX_WAIT_MAX];
	for (unsigned i = 0; i < XI_FUTEX_WAIT_MAX; i++)
		wait[i] = (struct xi_futex_wait){ .word = &words[i] };
	for (size_t k = 0; k < 3; k++) {
		unsigned n = sizes[k];
		pthread_t thread;
		uint64_t start = check_now();
		int r = xi_os->futex_wait(wait, n, 300000);
		if (r == -ENOSYS)
			check_skip("this kernel has no futex_waitv");
		CHECK_EQ(r, -ETIMEDOUT);
		CHECK_OP(check_now() - start, >=, 300000u);
		CHECK_EQ(pthread_create(&thread, NULL, change_last, &n), 0);
		while (!__atomic_load_n(&words[n - 1], __ATOMIC_SEQ_CST)) {
			r = xi_os->futex_wait(wait, n, -1);
			CHECK(r >= 0 || r == -EAGAIN || r == -EINTR);
		}
		CHECK_EQ(pthread_join(thread, NULL), 0);
		CHECK_EQ(xi_os->futex_wait(wait, n, -1), -EAGAIN);
		words[n - 1] = 0;
	}
}

static void test_names(void)
{
	struct addrinfo *list = NULL;
	CHECK_EQ(xi_os->getaddrinfo("127.0.0.1", "47615", AI_NUMERICHOST | AI_NUMERICSERV, &list), 0);
	CHECK(list && list->ai_family == AF_INET && list->ai_socktype == SOCK_STREAM);
	xi_os->freeaddrinfo(list);
	CHECK_EQ(xi_os->getaddrinfo("no number", "1", AI_NUMERICHOST, &list), EAI_NONAME);
}

static void test_machine(void)
{
	CHECK_OP(xi_os->cpus(), >=, 1);
	CHECK_OP(xi_os->memlock_limit(), >, 0u);
	CHECK_EQ(xi_os->geteuid(), geteuid());
	CHECK(!xi_os->getenv("XENIDC_SURELY_NOT_SET"));
}

/* The second and third allocation fail, the others do not. */
static void test_fault(void)
{
	int err = 0;
	fault_os_install();
	fault_os_set((struct fault){ .call = "alloc", .countdown = 1, .repeat = 2 });
	void *first = xi_os->alloc(1);
	CHECK(first);
	fault_os_pause(true);
	void *paused = xi_os->alloc(1);
	CHECK(paused);
	fault_os_pause(false);
	CHECK(!xi_os->alloc(1));
	CHECK(!xi_os->alloc(1));
	void *last = xi_os->alloc(1);
	CHECK(last);
	CHECK_EQ(fault_os_fired(), 2);
	CHECK_EQ(fault_os_calls("alloc"), 5);
	CHECK_EQ(fault_os_allocations(), 5);
	xi_os->free(first);
	xi_os->free(paused);
	xi_os->free(last);

	fault_os_set((struct fault){ .call = "mmap", .error = EAGAIN });
	CHECK(!xi_os->mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, &err));
	CHECK_EQ(err, -EAGAIN);
	/* Any call: whichever comes next, of those that a machine can refuse. */
	fault_os_set((struct fault){ .countdown = 1, .repeat = 1 });
	CHECK_EQ(xi_os->getpid(), getpid());
	int fd = xi_os->socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK_OP(fd, >=, 0);
	CHECK_EQ(xi_os->close(fd), 0);
	CHECK_EQ(xi_os->socket(AF_UNIX, SOCK_STREAM, 0), -EMFILE);
	CHECK_EQ(fault_os_fired(), 1);
	fault_os_set((struct fault){ .call = "getaddrinfo" });
	CHECK_EQ(xi_os->getaddrinfo("127.0.0.1", "1", 0, NULL), EAI_MEMORY);
	fault_os_remove();
	CHECK(xi_os == &xi_os_linux);
}

CHECK_MAIN(TEST(test_alloc), TEST(test_clock), TEST(test_entropy), TEST(test_getpid), TEST(test_memory),
	   TEST(test_epoll_times), TEST(test_futex), TEST(test_names), TEST(test_machine), TEST(test_fault))
