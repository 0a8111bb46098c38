/* SPDX-License-Identifier: MIT */
/*
 * The transport `same`: shm, but within one process both ends use the very same mapping of a region, so that a tool
 * that looks for races by address (ThreadSanitizer) sees both sides of each. Each end may be in a thread of its own.
 */
#ifndef TESTS_LIB_SAME_H
#define TESTS_LIB_SAME_H

/* Add it to the table of transports; addresses are same:NAME. */
void same_install(void);

#endif
