/* SPDX-License-Identifier: MIT */
/* Objects alive, by kind. */
#include "counters.h"

#include <stdatomic.h>

#include "assert.h"

static _Atomic int64_t alive[XI_OBJECT_KINDS];

void xi_created(enum xi_object kind)
{
	XI_ASSERT(kind < XI_OBJECT_KINDS);
	atomic_fetch_add_explicit(&alive[kind], 1, memory_order_relaxed);
}

void xi_destroyed(enum xi_object kind)
{
	XI_ASSERT(kind < XI_OBJECT_KINDS);
	int64_t before = atomic_fetch_sub_explicit(&alive[kind], 1, memory_order_relaxed);
	XI_ASSERT(before > 0);
}

int64_t xi_alive(enum xi_object kind)
{
	XI_ASSERT(kind < XI_OBJECT_KINDS);
	return atomic_load_explicit(&alive[kind], memory_order_relaxed);
}

const char *xi_object_name(enum xi_object kind)
{
	static const char *const names[] = {
#define XI_OBJECT_TEXT(name) #name,
		XI_OBJECTS(XI_OBJECT_TEXT)
#undef XI_OBJECT_TEXT
	};
	XI_ASSERT(kind < XI_OBJECT_KINDS);
	return names[kind];
}
