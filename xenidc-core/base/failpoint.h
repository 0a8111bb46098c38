/* SPDX-License-Identifier: MIT */
/*
 * Named places at which a test makes the process die, stop or fail. They exist in the testing build only
 * (XI_FAILPOINTS). XENIDC_FAILPOINT in the environment: "NAME:K:ACTION" - at the K-th pass of NAME do ACTION, one of
 * kill (SIGKILL), stop (SIGSTOP). All names stand in failpoints.def, so that a test can go through them.
 */
#ifndef XI_BASE_FAILPOINT_H
#define XI_BASE_FAILPOINT_H

#ifdef XI_FAILPOINTS
void xi_failpoint_hit(const char *name);
#define XI_FAILPOINT(name) xi_failpoint_hit(#name)
#else
#define XI_FAILPOINT(name) ((void)0)
#endif

/* All names, NULL-terminated (testing build; empty otherwise). */
extern const char *const xi_failpoint_names[];

#endif
