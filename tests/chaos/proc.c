/* SPDX-License-Identifier: MIT */
#include "proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "xenidc-core/base/counters.h"

static struct journal *journal_map(int fd)
{
	struct journal *j = mmap(NULL, sizeof(*j), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (j == MAP_FAILED)
		check_failed(__FILE__, __LINE__, "mapping the journal: %s", strerror(errno));
	return j;
}

struct journal *journal_new(char name[32])
{
	struct journal *j;
	int fd;

	strcpy(name, "/tmp/xenidc-chaos-XXXXXX");
	fd = mkstemp(name);
	if (fd < 0 || ftruncate(fd, sizeof(*j)) < 0)
		check_failed(__FILE__, __LINE__, "making the journal %s: %s", name, strerror(errno));
	j = journal_map(fd);
	j->fd = fd;
	/* The name goes at once, so that no run leaves a file behind; children find it as a descriptor of ours. */
	unlink(name);
	snprintf(name, 32, "/proc/%d/fd/%d", (int)getpid(), fd);
	return j;
}

struct journal *journal_open(const char *name)
{
	int fd = open(name, O_RDWR | O_CLOEXEC);
	struct journal *j;

	if (fd < 0)
		check_failed(__FILE__, __LINE__, "opening the journal %s: %s", name, strerror(errno));
	j = journal_map(fd);
	close(fd);
	return j;
}

void journal_clear(struct journal *journal)
{
	int fd = journal->fd;

	memset(journal, 0, sizeof(*journal));
	journal->fd = fd;
}

void journal_close(struct journal *journal)
{
	CHECK_EQ(close(journal->fd), 0);
	CHECK_EQ(munmap(journal, sizeof(*journal)), 0);
}

pid_t proc_start(const char *argv[], const char *failpoint)
{
	pid_t pid = check_fork();

	if (pid > 0)
		return pid;
	argv[0] = "chaos";
	if (failpoint)
		setenv("XENIDC_FAILPOINT", failpoint, 1);
	else
		unsetenv("XENIDC_FAILPOINT");
	execv("/proc/self/exe", (char *const *)(uintptr_t)argv);
	_exit(127);
}

bool proc_ended(pid_t pid, int *status)
{
	pid_t got = waitpid(pid, status, WNOHANG);

	if (got < 0)
		check_failed(__FILE__, __LINE__, "waitpid: %s", strerror(errno));
	return got == pid;
}

int proc_kill(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	if (waitpid(pid, &status, 0) != pid)
		check_failed(__FILE__, __LINE__, "waitpid: %s", strerror(errno));
	return status;
}

static void count_fds(struct census *c)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	char target[256];

	CHECK(dir);
	while ((entry = readdir(dir))) {
		ssize_t length = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);
		if (length < 0)
			continue;
		target[length] = '\0';
		c->fds++;
		c->memfds += strstr(target, "memfd:") != NULL;
	}
	closedir(dir);
	c->fds--; /* the folder itself */
}

static void count_mappings(struct census *c)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512], perms[8];

	CHECK(maps);
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%*s %7s", perms) != 1)
			continue;
		c->shared += perms[3] == 's';
		c->memfds += strstr(line, "memfd:") != NULL;
	}
	fclose(maps);
}

static void count_children(struct census *c)
{
	char path[64];
	FILE *list;
	int pid;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	list = fopen(path, "re");
	CHECK(list);
	while (fscanf(list, "%d", &pid) == 1)
		c->children++;
	fclose(list);
}

void census_take(struct census *ret)
{
	memset(ret, 0, sizeof(*ret));
	count_fds(ret);
	count_mappings(ret);
	count_children(ret);
	for (int i = 0; i < XI_OBJECT_KINDS; i++)
		ret->objects += xi_alive(i);
}

bool census_equal(const struct census *a, const struct census *b)
{
	return a->fds == b->fds && a->memfds == b->memfds && a->shared == b->shared && a->children == b->children &&
	       a->objects == b->objects;
}

void census_print(const char *what, const struct census *c)
{
	fprintf(stderr, "%s: %u descriptors, %u memfds, %u shared mappings, %u children, %ld objects\n", what, c->fds,
		c->memfds, c->shared, c->children, c->objects);
}

bool pump_until(xenidc_loop *loop, bool (*done)(void *), void *arg, unsigned ms)
{
	uint64_t end = check_now() + (uint64_t)ms * check_factor() * 1000000u;

	while (!done(arg)) {
		if (check_now() > end)
			return false;
		xenidc_loop_step(loop, 1000000);
	}
	return true;
}

uint64_t rng_next(struct rng *rng)
{
	uint64_t x = rng->state ? rng->state : 0x9e3779b97f4a7c15u;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	rng->state = x;
	return x * 0x2545f4914f6cdd1du;
}

uint32_t rng_below(struct rng *rng, uint32_t bound)
{
	return (uint32_t)((rng_next(rng) >> 32) % bound);
}
