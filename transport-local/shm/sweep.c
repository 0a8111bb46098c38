/* SPDX-License-Identifier: MIT */
/*
 * A process that is killed cannot remove its socket's file. The next one that listens does: a lock that can be had
 * belongs to nobody any more (place.c), and whoever holds it may remove both files.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "shm.h"
#include "xenidc-core/base/assert.h"
#include "xenidc-core/base/os.h"

/* Files looked at in one sweep: what is left over is for the next one. */
#define SWEEP_MAX 4096
/* A name in an address (xenidc.h) has at most 64 characters. */
#define SWEPT_NAME_MAX 64

struct sweep {
	char directory[sizeof(((struct sockaddr_un *)0)->sun_path)];
	unsigned seen;
};

/* The name between the dot and ".lock", or NULL. Shorter than a socket's path. */
static const char *name_of_lock(const char *file, size_t *ret_length)
{
	static const char end[] = ".lock";
	size_t length = strlen(file), tail = sizeof(end) - 1;

	if (length < tail + 2 || file[0] != '.' || strcmp(file + length - tail, end) != 0)
		return NULL;
	*ret_length = length - tail - 1;
	XI_ASSERT(*ret_length > 0);
	return file + 1;
}

/* We have its lock, and the lock's file is still there: nobody listens, and nobody is about to. */
static bool is_left(int lock)
{
	struct stat st;

	return xi_os->flock(lock, LOCK_EX | LOCK_NB) == 0 && xi_os->fstat(lock, &st) == 0 && st.st_nlink > 0;
}

static bool sweep_one(void *user, const char *file)
{
	char lock_path[sizeof(struct sockaddr_un) + 256], path[sizeof(struct sockaddr_un) + 256];
	struct sweep *sweep = user;
	const char *name;
	size_t length;
	int lock;

	if (++sweep->seen > SWEEP_MAX)
		return false;
	name = name_of_lock(file, &length);
	if (!name || length > SWEPT_NAME_MAX)
		return true;
	snprintf(lock_path, sizeof(lock_path), "%s/%.*s", sweep->directory, SWEPT_NAME_MAX + 8, file);
	snprintf(path, sizeof(path), "%s/%.*s", sweep->directory, (int)length, name);
	lock = xi_os->open(lock_path, O_RDWR | O_NOFOLLOW | O_CLOEXEC, 0);
	if (lock < 0)
		return true;
	if (is_left(lock)) {
		xi_os->unlink(path);
		xi_os->unlink(lock_path);
	}
	xi_os->close(lock);
	return true;
}

void xi_shm_sweep(const struct sockaddr_un *at)
{
	struct sweep sweep = { .seen = 0 };
	const char *slash = strrchr(at->sun_path, '/');

	XI_ASSERT(slash && slash > at->sun_path);
	memcpy(sweep.directory, at->sun_path, (size_t)(slash - at->sun_path));
	xi_os->list(sweep.directory, sweep_one, &sweep); /* what cannot be read stays */
}
