/* SPDX-License-Identifier: MIT */
/* shm: where sockets stand and whose they are, which memory is accepted, and what happens when the machine says no. */
#define _GNU_SOURCE
#include "transport-local/shm/shm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/check.h"
#include "tests/lib/fault_os.h"
#include "xenidc-core/base/counters.h"
#include "xenidc-core/base/limits.h"
#include "xenidc-core/base/os.h"
#include "xenidc-core/base/times.h"

/* --- A machine with another user on it */

static struct xi_os other_os;
static char runtime[200]; /* XDG_RUNTIME_DIR; empty: not set */
static uid_t foreign;     /* who owns what is ours, if not we */

static uid_t other_geteuid(void)
{
	return 12345;
}

static const char *other_getenv(const char *variable)
{
	if (strcmp(variable, "XDG_RUNTIME_DIR") != 0)
		return xi_os_linux.getenv(variable);
	return runtime[0] ? runtime : NULL;
}

static int other_fstat(int fd, struct stat *ret)
{
	int e = xi_os_linux.fstat(fd, ret);

	if (e == 0 && ret->st_uid == geteuid())
		ret->st_uid = foreign ? foreign : 12345;
	return e;
}

/* A fresh directory is XDG_RUNTIME_DIR. */
static void other_user(void)
{
	other_os = xi_os_linux;
	other_os.geteuid = other_geteuid;
	other_os.getenv = other_getenv;
	other_os.fstat = other_fstat;
	xi_os = &other_os;
	foreign = 0;
	snprintf(runtime, sizeof(runtime), "/tmp/xenidc-test-XXXXXX");
	CHECK(mkdtemp(runtime));
}

static void remove_all(const char *path)
{
	char command[300];

	snprintf(command, sizeof(command), "rm -rf '%s'", path);
	CHECK_EQ(system(command), 0);
}

static void same_user(void)
{
	if (runtime[0])
		remove_all(runtime);
	xi_os = &xi_os_linux;
}

static const char *under(const char *file)
{
	static char path[300];

	snprintf(path, sizeof(path), "%s/%s", runtime, file);
	return path;
}

/* --- Names and places */

static void test_names(void)
{
	static const char *const good[] = { "a", "A.b_c-9", "x..y",
					    "0123456789012345678901234567890123456789012345678901234567890123" };
	static const char *const bad[] = { "",     ".",   "..",  ".a", "a/b", "a b", "a:b",
					   "\xc3", "a\n", "a%s", "a*", "/",   "~" };
	struct xenidc_error err;

	for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		CHECK_EQ(xi_shm_check_name(good[i], &err), 0);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		err.text[0] = '\0';
		CHECK_EQ(xi_shm_check_name(bad[i], &err), -EINVAL);
		CHECK(err.text[0]);
	}
	CHECK_EQ(xi_shm_check_name("01234567890123456789012345678901234567890123456789012345678901234", &err),
		 -ENAMETOOLONG);
}

static void test_place_of_a_user(void)
{
	struct sockaddr_un at;
	struct xenidc_error err = { 0 };
	struct stat st;

	other_user();
	CHECK_EQ(xi_shm_place("n", false, &at, &err), 0); /* it is not there yet, and is not made */
	CHECK_STR(at.sun_path, under("xenidc/n"));
	CHECK_EQ(access(under("xenidc"), F_OK), -1);
	CHECK_EQ(xi_shm_place("n", true, &at, &err), 0);
	CHECK_EQ(stat(under("xenidc"), &st), 0);
	CHECK_EQ(st.st_mode & 07777, 0700);
	CHECK_EQ(xi_shm_place("n", true, &at, &err), 0);
	same_user();
}

static void test_places_that_do_not_do(void)
{
	struct sockaddr_un at;
	struct xenidc_error err = { 0 };
	char kept[sizeof(runtime)];

	other_user();
	memcpy(kept, runtime, sizeof(kept));
	CHECK_EQ(mkdir(under("xenidc"), 0700), 0);
	CHECK_EQ(chmod(under("xenidc"), 0750), 0);
	CHECK_EQ(xi_shm_place("n", true, &at, &err), -EACCES);
	CHECK_HAS(err.text, "chmod 700");
	CHECK_EQ(chmod(under("xenidc"), 0700), 0);
	CHECK_EQ(chmod(runtime, 0777), 0);
	CHECK_EQ(xi_shm_place("n", true, &at, &err), -EACCES);
	CHECK_HAS(err.text, "chmod go-w");
	CHECK_EQ(chmod(runtime, 01777), 0); /* as /tmp: there nobody can replace what is ours */
	CHECK_EQ(xi_shm_place("n", true, &at, &err), 0);
	foreign = 4321;
	CHECK_EQ(xi_shm_place("n", true, &at, &err), -EACCES);
	CHECK_HAS(err.text, "belongs to user 4321");
	foreign = 0;
	CHECK_EQ(rmdir(under("xenidc")), 0);
	CHECK_EQ(symlink("/tmp", under("xenidc")), 0);
	CHECK_EQ(xi_shm_place("n", true, &at, &err), -EADDRNOTAVAIL);
	runtime[0] = '\0';
	CHECK_EQ(xi_shm_place("n", false, &at, &err), -EADDRNOTAVAIL);
	CHECK_HAS(err.text, "not set");
	snprintf(runtime, sizeof(runtime), "relative");
	CHECK_EQ(xi_shm_place("n", false, &at, &err), -EADDRNOTAVAIL);
	snprintf(runtime, sizeof(runtime), "/tmp/xenidc-no-such-directory");
	CHECK_EQ(xi_shm_place("n", true, &at, &err), -EADDRNOTAVAIL);
	CHECK_HAS(err.text, "does not exist");
	memcpy(runtime, kept, sizeof(runtime));
	same_user();
}

static void test_long_paths(void)
{
	struct sockaddr_un at;
	struct xenidc_error err = { 0 };
	char longest[XI_SHM_NAME_MAX + 1], kept[sizeof(runtime)];
	size_t room;

	other_user();
	memcpy(kept, runtime, sizeof(kept));
	/* A directory such that a name of 10 characters just fits. */
	room = sizeof(at.sun_path) - 1 - strlen("/xenidc/") - 10;
	while (strlen(runtime) < room)
		strcat(runtime, strlen(runtime) == strlen(kept) ? "/" : "d");
	CHECK_EQ(mkdir(runtime, 0700), 0);
	memset(longest, 'n', sizeof(longest));
	longest[10] = '\0';
	CHECK_EQ(xi_shm_place(longest, true, &at, &err), 0);
	CHECK_EQ(strlen(at.sun_path), sizeof(at.sun_path) - 1);
	longest[10] = 'n';
	longest[11] = '\0';
	CHECK_EQ(xi_shm_place(longest, true, &at, &err), -ENAMETOOLONG);
	memset(runtime + strlen(runtime), 'd', 12);
	runtime[sizeof(runtime) - 1] = '\0';
	CHECK_EQ(xi_shm_place("n", true, &at, &err), -ENAMETOOLONG);
	memcpy(runtime, kept, sizeof(runtime));
	same_user();
}

/* --- Seats */

static int new_socket(void)
{
	int fd = xi_os->socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	CHECK(fd >= 0);
	return fd;
}

static int take(struct xi_shm_seat *seat, int fd)
{
	struct xenidc_error err = { 0 };
	int e = xi_shm_seat_take(seat, "seat", fd, &err);

	CHECK_EQ(!e, !err.text[0]);
	return e;
}

static void test_seats(void)
{
	struct xi_shm_seat one = { 0 }, two = { 0 };
	int fds[3];

	other_user();
	for (int i = 0; i < 3; i++)
		fds[i] = new_socket();
	CHECK_EQ(take(&one, fds[0]), 0);
	CHECK_EQ(take(&two, fds[1]), -EADDRINUSE);
	CHECK_EQ(access(under("xenidc/seat"), F_OK), 0); /* and the first one keeps it */
	xi_shm_seat_leave(&one, false);
	CHECK_EQ(access(under("xenidc/seat"), F_OK), -1);
	CHECK_EQ(access(under("xenidc/.seat.lock"), F_OK), -1);
	CHECK_EQ(take(&two, fds[1]), 0);
	/* What stands there now is none of ours, and stays. */
	CHECK_EQ(unlink(under("xenidc/seat")), 0);
	CHECK_EQ(mknod(under("xenidc/seat"), S_IFREG | 0600, 0), 0);
	xi_shm_seat_leave(&two, false);
	CHECK_EQ(access(under("xenidc/seat"), F_OK), 0);
	CHECK_EQ(take(&one, fds[2]), 0); /* but its name can be had */
	xi_shm_seat_leave(&one, true);   /* as in a forked child: the files stay */
	CHECK_EQ(access(under("xenidc/seat"), F_OK), 0);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	CHECK_EQ(xi_alive(XI_OBJECT_FD), 0);
	same_user();
}

/* Wait for the word to go, try to get the seat, tell how it went; with it, stay until killed. */
static void heir(int go, int tell)
{
	struct xi_shm_seat seat = { 0 };
	char byte;

	CHECK_EQ(read(go, &byte, 1), 0);
	byte = take(&seat, new_socket()) == 0;
	CHECK_EQ(write(tell, &byte, 1), 1);
	if (byte)
		pause();
	_exit(0);
}

/* Whoever listens removes what the killed left, and nothing else. */
static void test_sweep(void)
{
	struct xi_shm_seat alive = { 0 }, next = { 0 };
	pid_t pid;
	int fds[2];
	char byte;

	other_user();
	CHECK_EQ(pipe(fds), 0);
	CHECK_EQ(take(&alive, new_socket()), 0);
	pid = check_fork();
	if (pid == 0) {
		struct xi_shm_seat seat = { 0 };
		struct xenidc_error err;
		CHECK_EQ(xi_shm_seat_take(&seat, "killed", new_socket(), &err), 0);
		CHECK_EQ(write(fds[1], "k", 1), 1);
		for (;;)
			pause();
	}
	CHECK_EQ(read(fds[0], &byte, 1), 1);
	CHECK_EQ(mknod(under("xenidc/other"), S_IFREG | 0600, 0), 0);
	xi_shm_sweep(&alive.at);
	CHECK_EQ(access(under("xenidc/killed"), F_OK), 0); /* it lives */
	CHECK_EQ(kill(pid, SIGKILL), 0);
	CHECK_EQ(check_wait(pid), -SIGKILL);
	xi_shm_sweep(&alive.at);
	CHECK_EQ(access(under("xenidc/killed"), F_OK), -1);
	CHECK_EQ(access(under("xenidc/.killed.lock"), F_OK), -1);
	CHECK_EQ(access(under("xenidc/seat"), F_OK), 0);
	CHECK_EQ(access(under("xenidc/.seat.lock"), F_OK), 0);
	CHECK_EQ(access(under("xenidc/other"), F_OK), 0);
	CHECK_EQ(take(&next, new_socket()), -EADDRINUSE);
	xi_shm_seat_leave(&alive, false);
	same_user();
}

/* Somebody was killed and left its files; many want its seat at once: one gets it. */
#define HEIRS 6
static void test_one_heir(void)
{
	other_user();
	for (int round = 0; round < 20; round++) {
		int go[2], tell[2], winners = 0, killed = 0;
		pid_t pids[HEIRS];
		CHECK_EQ(pipe(go) | pipe(tell), 0);
		for (int i = 0; i < HEIRS; i++) {
			pids[i] = check_fork();
			if (pids[i] == 0) {
				close(go[1]);
				heir(go[0], tell[1]);
			}
		}
		close(go[1]);
		for (int i = 0; i < HEIRS; i++) {
			char won;
			CHECK_EQ(read(tell[0], &won, 1), 1);
			winners += won;
		}
		for (int i = 0; i < HEIRS; i++) {
			kill(pids[i], SIGKILL); /* one that has ended already does not mind */
			killed += check_wait(pids[i]) == -SIGKILL;
		}
		CHECK_EQ(winners, 1);
		CHECK(killed >= 1);
		close(go[0]);
		close(tell[0]);
		close(tell[1]);
	}
	same_user();
}

/* --- Memory that a peer sends */

#define BYTES (16 * 4096u)

static void check_import(int fd, int want, const char *word)
{
	struct xi_shm_link link = { .peer_memfd = fd + 1 };
	struct xenidc_error err = { 0 };

	if (fd >= 0)
		xi_created(XI_OBJECT_FD);
	CHECK_EQ(xi_shm_region_import(&link, BYTES, &err), want);
	if (want) {
		CHECK_HAS(err.text, word);
		CHECK(!link.peer_base);
	}
	xi_shm_region_drop(&link);
	CHECK_EQ(xi_alive(XI_OBJECT_FD) + xi_alive(XI_OBJECT_MAPPING), 0);
}

static int memfd(unsigned seals, off_t bytes)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	CHECK(fd >= 0 && ftruncate(fd, bytes) == 0);
	if (seals)
		CHECK_EQ(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static void test_memory_of_a_peer(void)
{
	const unsigned all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;
	char path[] = "/dev/shm/xenidc-test-XXXXXX";
	int fds[2];

	check_import(memfd(all, BYTES), 0, NULL);
	check_import(memfd((all & ~(unsigned)F_SEAL_FUTURE_WRITE) | F_SEAL_WRITE, BYTES), 0, NULL);
	check_import(memfd(0, BYTES), -EACCES, "size can be changed");
	check_import(memfd(all & ~(unsigned)F_SEAL_SHRINK, BYTES), -EACCES, "size can be changed");
	check_import(memfd(all & ~(unsigned)F_SEAL_GROW, BYTES), -EACCES, "size can be changed");
	check_import(memfd(all & ~(unsigned)F_SEAL_FUTURE_WRITE, BYTES), -EACCES, "can write it");
	check_import(memfd(all & ~(unsigned)F_SEAL_SEAL, BYTES), -EACCES, "not final");
	check_import(memfd(all, BYTES - 4096), -EPROTO, "smaller");
	check_import(memfd(all, 0), -EPROTO, "smaller");
	check_import(memfd(all, BYTES + 4096), -EPROTO, "larger");
	check_import(memfd_create("test", MFD_CLOEXEC), -EACCES, "not sealed");
	check_import(open("/dev/zero", O_RDONLY), -EACCES, "no memfd");
	check_import(open("/proc/self/exe", O_RDONLY), -EACCES, "no memfd");
	CHECK_EQ(pipe(fds), 0);
	check_import(fds[0], -EACCES, "no memfd");
	close(fds[1]);
	fds[0] = mkstemp(path); /* a file on tmpfs without a name is as good as a memfd, but for its seals */
	CHECK(fds[0] >= 0 && unlink(path) == 0 && ftruncate(fds[0], BYTES) == 0);
	check_import(fds[0], -EACCES, "memory");
	check_import(-1, -EPROTO, "none came along");
}

/* Ours cannot be spoilt by whoever gets it. */
static void test_memory_of_ours(void)
{
	struct xi_shm_link link = { 0 };
	struct xenidc_error err = { 0 };
	char path[64];
	int fd;

	CHECK_EQ(xi_shm_region_make(&link, BYTES, &err), 0);
	for (unsigned i = 0; i < BYTES; i++)
		CHECK_EQ(link.base[i], 0);
	link.base[77] = 7;
	fd = link.memfd - 1;
	CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	CHECK_EQ(ftruncate(fd, 0), -1);
	CHECK_EQ(ftruncate(fd, 2 * BYTES), -1);
	CHECK_EQ(write(fd, "x", 1), -1);
	CHECK_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -1);
	CHECK(mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
	CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	fd = open(path, O_RDWR);
	CHECK(fd >= 0);
	CHECK_EQ(pwrite(fd, "x", 1, 77), -1);
	close(fd);
	CHECK_EQ(link.base[77], 7);
	xi_shm_region_drop(&link);
	CHECK_EQ(xi_alive(XI_OBJECT_FD) + xi_alive(XI_OBJECT_MAPPING) + xi_alive(XI_OBJECT_REGION), 0);
}

/* Each reason for which memory cannot be had is told with a way out, and leaves nothing. */
static void test_memory_that_cannot_be_had(void)
{
	static const char *const calls[] = { "memfd_create", "ftruncate", "fallocate", "mmap", "fcntl" };
	static const char *const advice[] = { "ulimit -n", "memory.max", "memory.max", "memory.max", "doctor" };

	fault_os_install();
	for (unsigned i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		struct xi_shm_link link = { 0 };
		struct xenidc_error err = { 0 };
		fault_os_set((struct fault){ .call = calls[i], .error = i == 4 ? EPERM : 0 });
		CHECK(xi_shm_region_make(&link, BYTES, &err) < 0);
		CHECK_HAS(err.text, advice[i]);
		CHECK_HAS(err.text, "64 kB");
		fault_os_clear();
		xi_shm_region_drop(&link);
		CHECK_EQ(xi_alive(XI_OBJECT_FD) + xi_alive(XI_OBJECT_MAPPING) + xi_alive(XI_OBJECT_REGION), 0);
	}
	fault_os_remove();
}

CHECK_MAIN(TEST(test_names), TEST(test_place_of_a_user), TEST(test_places_that_do_not_do), TEST(test_long_paths),
	   TEST(test_seats), TEST(test_sweep), TEST(test_one_heir), TEST(test_memory_of_a_peer),
	   TEST(test_memory_of_ours), TEST(test_memory_that_cannot_be_had))
