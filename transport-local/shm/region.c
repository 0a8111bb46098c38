/* SPDX-License-Identifier: MIT */
/* Memory of one side: a memfd that its maker alone can write, and that nobody can shrink, sealed for good. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <syslog.h>

#include "shm.h"
#include "xenidc-core/base/assert.h"
#include "xenidc-core/base/counters.h"
#include "xenidc-core/base/failpoint.h"
#include "xenidc-core/base/log.h"
#include "xenidc-core/base/os.h"

/* Headers older than the kernel. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 16
#endif

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)
/* A mapping is replaced by one of the same size: it fails for want of kernel memory only, if at all. */
#define ZERO_TRIES 3

static int create(void)
{
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd = xi_os->memfd_create("xenidc", flags | MFD_NOEXEC_SEAL);

	return fd == -EINVAL ? xi_os->memfd_create("xenidc", flags) : fd; /* Linux before 6.3 */
}

static int make_failed(uint64_t bytes, int e, const char *what, struct xenidc_error *err)
{
	const char *advice = "raise the memory limit of this process (ulimit -v, cgroup memory.max), or ask for fewer "
			     "or smaller buffers";

	if (e == -EMFILE || e == -ENFILE)
		advice = "too many open files: raise `ulimit -n`, or use fewer channels";
	else if (e == -EACCES || e == -EPERM || e == -EINVAL || e == -ENOSYS)
		advice = "this system does not allow sealed memfds; see `xenidc doctor`";
	if (e != -EMFILE && e != -EAGAIN)
		e = -ENOMEM;
	return xi_error(err, e, XENIDC_REASON_RESOURCE, "reserving %llu kB of shared memory: %s failed; %s",
			(unsigned long long)(bytes >> 10), what, advice);
}

int xi_shm_region_make(struct xi_shm_link *link, uint64_t bytes, struct xenidc_error *err)
{
	const int flags = MAP_SHARED | MAP_POPULATE;
	int fd = create(), e;

	XI_ASSERT(!link->base && bytes);
	if (fd < 0)
		return make_failed(bytes, fd, "making it", err);
	xi_created(XI_OBJECT_FD);
	link->memfd = fd + 1;
	e = xi_os->ftruncate(fd, (off_t)bytes);
	if (e == 0)
		e = xi_os->fallocate(fd, (off_t)bytes);
	if (e)
		return make_failed(bytes, e, "getting memory for it", err);
	link->base = xi_os->mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, flags, fd, 0, &e);
	if (!link->base)
		return make_failed(bytes, e, "mapping it", err);
	xi_created(XI_OBJECT_MAPPING);
	xi_created(XI_OBJECT_REGION);
	link->bytes = bytes;
	e = xi_os->fcntl(fd, F_ADD_SEALS, SEALS);
	if (e)
		return make_failed(bytes, e, "sealing it", err);
	XI_FAILPOINT(shm_memfd_sealed);
	return 0;
}

static int refuse(struct xenidc_error *err, int e, const char *why)
{
	return xi_error(
		err, e, XENIDC_REASON_PROTOCOL,
		"the memory that the peer sent cannot be used: %s; if both sides run current versions, report this",
		why);
}

/* What the peer sent must be what no later act of its own can turn into a trap. */
static int verify(int fd, uint64_t bytes, struct xenidc_error *err)
{
	uint64_t size;
	bool memfd;
	int seals, e;

	e = xi_os->fstat_size(fd, &size, &memfd);
	if (e || !memfd)
		return refuse(err, -EACCES, "it is no memfd");
	seals = xi_os->fcntl(fd, F_GET_SEALS, 0);
	if (seals < 0)
		return refuse(err, -EACCES, "it is no memfd");
	if (!(seals & F_SEAL_SHRINK) || !(seals & F_SEAL_GROW))
		return refuse(err, -EACCES, "its size can be changed (it is not sealed)");
	if (!(seals & (F_SEAL_FUTURE_WRITE | F_SEAL_WRITE)))
		return refuse(err, -EACCES, "others than its maker can write it (it is not sealed)");
	if (!(seals & F_SEAL_SEAL))
		return refuse(err, -EACCES, "its seals are not final");
	if (size != bytes)
		return refuse(err, -EPROTO,
			      size < bytes ? "it is smaller than agreed on" : "it is larger than agreed on");
	return 0;
}

int xi_shm_region_import(struct xi_shm_link *link, uint64_t bytes, struct xenidc_error *err)
{
	const int flags = MAP_SHARED | MAP_POPULATE;
	int fd = link->peer_memfd - 1, e;

	XI_ASSERT(!link->peer_base);
	if (fd < 0)
		return refuse(err, -EPROTO, "none came along");
	e = verify(fd, bytes, err);
	if (e)
		return e;
	link->peer_base = xi_os->mmap(NULL, (size_t)bytes, PROT_READ, flags, fd, 0, &e);
	if (!link->peer_base)
		return xi_error(err, -ENOMEM, XENIDC_REASON_RESOURCE,
				"mapping %llu kB of the peer's memory failed; raise the memory limit of this process "
				"(ulimit -v), or ask for fewer or smaller buffers",
				(unsigned long long)(bytes >> 10));
	xi_created(XI_OBJECT_MAPPING);
	link->peer_bytes = bytes;
	xi_os->close(fd);
	xi_destroyed(XI_OBJECT_FD);
	link->peer_memfd = 0;
	return 0;
}

void xi_shm_region_zero(struct xi_shm_link *link)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
	void *at = (void *)(uintptr_t)link->peer_base;
	int e = 0;

	for (int i = 0; at && i < ZERO_TRIES; i++)
		if (xi_os->mmap(at, (size_t)link->peer_bytes, PROT_READ, flags, -1, 0, &e))
			return;
	/* It stays as it is, which harms nobody's memory; with MAP, views of it can still change until the end. */
	if (at)
		xi_log(LOG_ERR, "the memory of a peer cannot be replaced by zero pages (error %d)", -e);
}

void xi_shm_region_drop(struct xi_shm_link *link)
{
	if (link->peer_base) {
		xi_os->munmap((void *)(uintptr_t)link->peer_base, (size_t)link->peer_bytes);
		xi_destroyed(XI_OBJECT_MAPPING);
	}
	if (link->base) {
		xi_os->munmap(link->base, (size_t)link->bytes);
		xi_destroyed(XI_OBJECT_MAPPING);
		xi_destroyed(XI_OBJECT_REGION);
	}
	link->peer_base = link->base = NULL;
	if (link->memfd) {
		xi_os->close(link->memfd - 1);
		xi_destroyed(XI_OBJECT_FD);
	}
	if (link->peer_memfd) {
		xi_os->close(link->peer_memfd - 1);
		xi_destroyed(XI_OBJECT_FD);
	}
	link->memfd = link->peer_memfd = 0;
}
