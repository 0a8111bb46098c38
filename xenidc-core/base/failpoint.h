/* SPDX-License-Identifier: MIT */
/*
 * Named places at which a test makes the process die, stop or fail. They exist in the testing build only
 * (XI_FAILPOINTS). XENIDC_FAILPOINT in the environment: "NAME:K:ACTION" - at the K-th pass of NAME do ACTION, one of
 * kill (SIGKILL), stop (SIGSTOP). All names stand in failpoints.def, so that a test can go through them.
 */
#ifndef XI_BASE_FAILPOINT_H
#define XI_BASE_FAILPOINT_H

#ifdef XI_FAILPOINTS
#include <stdbool.h>

enum xi_failpoint {
#define X(name) XI_FAILPOINT_##name,
#include "failpoints.def"
#undef X
	XI_FAILPOINTS_END
};
/* Passing a place. A name that does not stand in failpoints.def does not compile. */
void xi_failpoint_hit(enum xi_failpoint place);
#define XI_FAILPOINT(name) xi_failpoint_hit(XI_FAILPOINT_##name)
/* Instead of the environment: the same text, NULL for none. False: not understood (nothing is set then). */
bool xi_failpoint_set(const char *text);
#else
#define XI_FAILPOINT(name) ((void)0)
#endif

/* All names, NULL-terminated (testing build; empty otherwise). */
extern const char *const xi_failpoint_names[];

#endif
