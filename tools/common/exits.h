/* SPDX-License-Identifier: MIT */
/* Exit codes of all tools. They are documented (`xenidc help exits`) and never change their meaning. */
#ifndef XI_TOOLS_EXITS_H
#define XI_TOOLS_EXITS_H

#include <xenidc/xenidc.h>

#define XI_EXITS(X)                                                                                                    \
	X(OK, 0, "it worked")                                                                                          \
	X(PROBLEM, 1, "it ran, and found a problem: wrong data, no answer, a check of `doctor` that failed")           \
	X(USAGE, 2, "the command line cannot be used; the message says why")                                           \
	X(UNREACHABLE, 3, "nobody answers at the address")                                                             \
	X(REFUSED, 4, "the peer refused: access, service, version or budget")                                          \
	X(RESOURCE, 5, "this machine lacks something: memory, descriptors, permission, support")                       \
	X(LOST, 6, "the connection was made and then lost")

enum xi_exit {
#define XI_EXIT_ENUM(name, number, text) XI_EXIT_##name = (number),
	XI_EXITS(XI_EXIT_ENUM)
#undef XI_EXIT_ENUM
};

/* The exit code for a connect, or a listener, that did not work out. */
enum xi_exit xi_exit_of(const struct xenidc_error *err);

#endif
