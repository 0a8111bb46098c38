/* SPDX-License-Identifier: MIT */
/* Where sockets stand: a directory that nobody else can enter, a file for each name, and a lock beside it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "shm.h"
#include "xenidc-core/base/assert.h"
#include "xenidc-core/base/counters.h"
#include "xenidc-core/base/failpoint.h"
#include "xenidc-core/base/log.h"
#include "xenidc-core/base/os.h"

#define NAME_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
#define ROOT_PARENT "/run"
#define FOLDER "xenidc"
/* Times that a lock may be found whose file was removed while we took it. */
#define LOCK_TRIES 64

int xi_shm_check_name(const char *name, struct xenidc_error *err)
{
	size_t length = strlen(name), good = strspn(name, NAME_CHARACTERS);

	if (!length)
		return xi_error(
			err, -EINVAL, XENIDC_REASON_ADDRESS,
			"the address `shm:` lacks a name; say shm:NAME, NAME of letters, digits, `.`, `_` and `-`");
	if (good < length)
		return xi_error(
			err, -EINVAL, XENIDC_REASON_ADDRESS,
			"`%c` at position %zu cannot stand in the name of an shm: address; use letters, digits, "
			"`.`, `_` and `-`",
			name[good], good + 1);
	if (name[0] == '.')
		return xi_error(err, -EINVAL, XENIDC_REASON_ADDRESS,
				"the name of an shm: address cannot start with a dot; choose another");
	if (length > XI_SHM_NAME_MAX)
		return xi_error(err, -ENAMETOOLONG, XENIDC_REASON_ADDRESS,
				"the name of an shm: address has %zu characters; %d are possible", length,
				XI_SHM_NAME_MAX);
	return 0;
}

/* --- The directory */

/* Is the directory ours, or root's (`own`: ours only), such that others cannot write to it (or not even enter it)?
 * -ENOENT is left to the caller to explain. */
static int check_directory(const char *path, bool own, struct xenidc_error *err)
{
	uid_t me = xi_os->geteuid();
	struct stat st;
	int fd = xi_os->open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (own ? O_NOFOLLOW : 0), 0), e;

	if (fd == -ENOENT)
		return fd;
	e = fd < 0 ? fd : xi_os->fstat(fd, &st);
	if (fd >= 0)
		xi_os->close(fd);
	if (e)
		return xi_error(err, e == -EACCES || e == -EPERM ? -EACCES : -EADDRNOTAVAIL, XENIDC_REASON_PERMISSION,
				"the directory %s, where shm: sockets stand, cannot be used (%s); check it", path,
				e == -ENOTDIR || e == -ELOOP   ? "it is no directory"
				: e == -EMFILE || e == -ENFILE ? "too many open files: raise `ulimit -n`"
							       : "refused by the system");
	if (st.st_uid != me && (own || st.st_uid != 0))
		return xi_error(
			err, -EACCES, XENIDC_REASON_PERMISSION,
			"the directory %s, where shm: sockets stand, belongs to user %u, not to user %u; remove it, or "
			"set XDG_RUNTIME_DIR to a directory of your own",
			path, (unsigned)st.st_uid, (unsigned)me);
	/* Above ours, a directory that all write to will do if nobody can rename there what is not his (/tmp). */
	if (st.st_mode & (own ? 077 : 022) && !(st.st_mode & S_ISVTX && !own))
		return xi_error(
			err, -EACCES, XENIDC_REASON_PERMISSION,
			"the directory %s, where shm: sockets stand, can be used by others (mode %03o); make it "
			"private: chmod %s %s",
			path, (unsigned)st.st_mode & 0777, own ? "700" : "go-w", path);
	return 0;
}

/* The directory's path, without a closing slash. Verified. */
static int directory(bool create, char *path, size_t size, struct xenidc_error *err)
{
	const char *parent = xi_os->geteuid() == 0 ? ROOT_PARENT : xi_os->getenv("XDG_RUNTIME_DIR");
	int length, e;

	if (!parent || parent[0] != '/')
		return xi_error(
			err, -EADDRNOTAVAIL, XENIDC_REASON_ADDRESS,
			"there is no place for shm: sockets: XDG_RUNTIME_DIR is %s; log in with a session manager, or "
			"set it to a private directory of yours, the same for both sides",
			parent ? "no absolute path" : "not set");
	length = snprintf(path, size, "%s/" FOLDER, parent);
	if (length < 0 || (size_t)length >= size)
		return xi_error(err, -ENAMETOOLONG, XENIDC_REASON_ADDRESS,
				"the path in XDG_RUNTIME_DIR is too long for a socket; set it to a shorter one");
	e = check_directory(parent, false, err);
	if (e == -ENOENT)
		return xi_error(err, -EADDRNOTAVAIL, XENIDC_REASON_ADDRESS,
				"there is no place for shm: sockets: the directory %s does not exist; make it, for "
				"yourself only",
				parent);
	if (e)
		return e;
	e = create ? xi_os->mkdir(path, 0700) : 0;
	if (e && e != -EEXIST)
		return xi_error(
			err, e == -EACCES || e == -EPERM || e == -EROFS ? -EACCES : -EADDRNOTAVAIL,
			XENIDC_REASON_PERMISSION,
			"the directory %s, where shm: sockets stand, cannot be made; check permissions and free space",
			path);
	e = check_directory(path, true, err);
	return e == -ENOENT && !create ? 0 : e; /* then nobody has listened yet */
}

int xi_shm_place(const char *name, bool create, struct sockaddr_un *ret, struct xenidc_error *err)
{
	char path[sizeof(ret->sun_path)];
	size_t length;
	int e = directory(create, path, sizeof(path), err);

	XI_ASSERT(name[0]);
	if (e)
		return e;
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	length = strlen(path);
	if (length + 1 + strlen(name) >= sizeof(ret->sun_path))
		return xi_error(
			err, -ENAMETOOLONG, XENIDC_REASON_ADDRESS,
			"the socket %s/%s has a longer path than the system allows (%zu); choose a shorter name, or "
			"a shorter XDG_RUNTIME_DIR",
			path, name, sizeof(ret->sun_path) - 1);
	memcpy(ret->sun_path, path, length);
	ret->sun_path[length] = '/';
	memcpy(ret->sun_path + length + 1, name, strlen(name) + 1);
	return 0;
}

/* --- A seat */

/* The lock of a socket is named as no socket can be: with a dot before. */
static void lock_path(const struct sockaddr_un *at, char *path, size_t size)
{
	const char *slash = strrchr(at->sun_path, '/');

	XI_ASSERT(slash);
	snprintf(path, size, "%.*s/.%s.lock", (int)(slash - at->sun_path), at->sun_path, slash + 1);
}

/* The lock, as a descriptor. The holder may remove its file at the end: a lock without a file is worth nothing. */
static int take_lock(const struct sockaddr_un *at, const char *name, struct xenidc_error *err)
{
	char path[sizeof(at->sun_path) + 8];
	int fd = -1, e = -EBUSY;

	lock_path(at, path, sizeof(path));
	for (int i = 0; i < LOCK_TRIES; i++) {
		struct stat st;
		fd = xi_os->open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd < 0) {
			e = fd;
			break;
		}
		e = xi_os->flock(fd, LOCK_EX | LOCK_NB);
		if (e == 0)
			e = xi_os->fstat(fd, &st);
		if (e == 0 && st.st_nlink > 0)
			return fd;
		xi_os->close(fd);
		if (e && e != -EWOULDBLOCK) /* a sweep holds a lock for a moment, a listener for long */
			break;
		e = -EBUSY;
	}
	if (e == -EWOULDBLOCK || e == -EBUSY)
		return xi_error(err, -EADDRINUSE, XENIDC_REASON_ADDRESS,
				"somebody listens at shm:%s already; end that process, or choose another name", name);
	return xi_error(
		err, e == -EACCES || e == -ELOOP ? -EACCES : e,
		e == -EMFILE || e == -ENFILE || e == -ENOSPC ? XENIDC_REASON_RESOURCE : XENIDC_REASON_PERMISSION,
		"the lock %s cannot be opened (%s); check the directory's permissions and free space", path,
		e == -EMFILE || e == -ENFILE ? "too many open files: raise `ulimit -n`" : "refused by the system");
}

/* Which file stands at the path? */
static int look_up(const char *path, struct stat *ret)
{
	int fd = xi_os->open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0), e;

	if (fd < 0)
		return fd;
	e = xi_os->fstat(fd, ret);
	xi_os->close(fd);
	return e;
}

int xi_shm_seat_take(struct xi_shm_seat *seat, const char *name, int socket, struct xenidc_error *err)
{
	struct stat st;
	int e = xi_shm_place(name, true, &seat->at, err), fd;

	if (e)
		return e;
	fd = take_lock(&seat->at, name, err);
	if (fd < 0)
		return fd;
	xi_created(XI_OBJECT_FD);
	seat->lock = fd + 1;
	/* We hold the lock: a file that is there was left by somebody who ended without removing it. */
	e = xi_os->unlink(seat->at.sun_path);
	XI_FAILPOINT(shm_seat_locked);
	if (e == 0 || e == -ENOENT)
		e = xi_os->bind(socket, (const struct sockaddr *)&seat->at, sizeof(seat->at));
	if (e == 0) {
		seat->bound = true;
		e = look_up(seat->at.sun_path, &st);
	}
	if (e == 0) {
		seat->device = st.st_dev;
		seat->inode = st.st_ino;
		return 0;
	}
	xi_shm_seat_leave(seat, false);
	return xi_error(
		err, e == -EACCES || e == -EPERM || e == -EROFS ? -EACCES : -EADDRNOTAVAIL, XENIDC_REASON_PERMISSION,
		"the socket %s cannot be made (%s); remove what stands there, or check permissions and free space",
		seat->at.sun_path, e == -EISDIR || e == -EADDRINUSE ? "something else stands there" : "refused");
}

void xi_shm_seat_leave(struct xi_shm_seat *seat, bool forked)
{
	char path[sizeof(seat->at.sun_path) + 8];
	struct stat st;

	if (!seat->lock)
		return;
	if (!forked) {
		bool ours = seat->bound && look_up(seat->at.sun_path, &st) == 0 && st.st_dev == seat->device &&
			    st.st_ino == seat->inode;
		/* Bound, and not looked up yet: the lock says that it is ours. */
		if (ours || (seat->bound && !seat->inode))
			xi_os->unlink(seat->at.sun_path);
		lock_path(&seat->at, path, sizeof(path));
		xi_os->unlink(path);
	}
	xi_os->close(seat->lock - 1);
	xi_destroyed(XI_OBJECT_FD);
	seat->lock = 0;
	seat->bound = false;
}
