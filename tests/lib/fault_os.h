/* SPDX-License-Identifier: MIT */
/*
 * A table of OS calls in front of the real one (or of whatever table was in use): counts calls, and makes chosen ones
 * fail. Install it before anything of the library is called in this test.
 *
 *     fault_os_install();
 *     fault_os_set((struct fault){ .call = "mmap", .countdown = 2, .repeat = 1 });    the third mmap fails, once
 *     ...
 *     CHECK_EQ(fault_os_fired(), 1);
 *     fault_os_remove();
 */
#ifndef TESTS_LIB_FAULT_OS_H
#define TESTS_LIB_FAULT_OS_H

#include <stdbool.h>
#include <stdint.h>

struct fault {
	const char *call;   /* a name of struct xi_os; NULL: any call that a full machine can make fail */
	unsigned countdown; /* calls that go well first */
	unsigned repeat;    /* calls that fail then; 0: all of them */
	int error;          /* errno; 0: the usual one of that call */
};

void fault_os_install(void);
/* Put the table back that was in use before. */
void fault_os_remove(void);

/* One fault at a time; it replaces the one before. An unknown name is a mistake of the test (it ends). */
void fault_os_set(struct fault fault);
/* None. */
void fault_os_clear(void);
/* While paused, calls neither count down nor fail. */
void fault_os_pause(bool paused);
/* Calls that were made to fail since fault_os_set(). */
unsigned fault_os_fired(void);

/* Calls by name since fault_os_install(); paused or not. */
uint64_t fault_os_calls(const char *call);
/* alloc, mmap and memfd_create together: what must not happen between connected and idle. */
uint64_t fault_os_allocations(void);

#endif
