/* SPDX-License-Identifier: MIT */
/*
 * No allocation between connected and idle: whatever way it takes. malloc and its kin, mmap and memfd_create are
 * defined here, in front of libc's; under a sanitizer, which needs them for itself, its hook is used instead.
 *
 * A mapping that replaces one of ours in place (MAP_FIXED) is none: that is how memory of a peer is taken back.
 */
#define _GNU_SOURCE
#include "harness.h"

#include <errno.h>
#include <execinfo.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static _Atomic bool forbidden;

void alloc_forbid(bool on)
{
	atomic_store(&forbidden, on);
}

static void seen(const char *what, size_t size)
{
	void *frames[24];
	int n;

	if (!atomic_load_explicit(&forbidden, memory_order_relaxed))
		return;
	atomic_store(&forbidden, false);
	n = backtrace(frames, 24);
	backtrace_symbols_fd(frames, n, STDERR_FILENO);
	check_failed(__FILE__, __LINE__, "%s of %zu bytes between connected and idle", what, size);
}

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define BY_HOOK
#endif
#endif

#ifdef BY_HOOK
int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void *, size_t),
					      void (*free_hook)(const volatile void *));

static void malloc_seen(const volatile void *p, size_t size)
{
	(void)p;
	seen("malloc", size);
}

static void free_seen(const volatile void *p)
{
	(void)p;
}

__attribute__((constructor)) static void install(void)
{
	__sanitizer_install_malloc_and_free_hooks(malloc_seen, free_seen);
}
#else
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size)
{
	seen("malloc", size);
	return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	seen("calloc", n * size);
	return __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
	seen("realloc", size);
	return __libc_realloc(p, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
	seen("aligned_alloc", size);
	return __libc_memalign(alignment, size);
}

int posix_memalign(void **ret, size_t alignment, size_t size)
{
	seen("posix_memalign", size);
	*ret = __libc_memalign(alignment, size);
	return *ret ? 0 : ENOMEM;
}

void *mmap(void *at, size_t length, int prot, int flags, int fd, off_t offset)
{
	if (!(flags & MAP_FIXED))
		seen("mmap", length);
	return (void *)syscall(SYS_mmap, at, length, prot, flags, fd, offset);
}

int memfd_create(const char *name, unsigned flags)
{
	seen("memfd_create", 0);
	return (int)syscall(SYS_memfd_create, name, flags);
}
#endif
