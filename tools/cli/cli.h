/* SPDX-License-Identifier: MIT */
/* The command `xenidc`: one file a verb. */
#ifndef XI_TOOLS_CLI_H
#define XI_TOOLS_CLI_H

#include <stdarg.h>

#include "tools/common/exits.h"

struct xi_verb {
	const char *name;
	const char *arguments; /* "ADDRESS [--json]" */
	const char *summary;   /* one line */
	const char *help;      /* the rest, for `xenidc help VERB` */
	/* argv[0] is the verb. Returns an exit code. */
	int (*run)(int argc, char **argv);
};

extern const struct xi_verb xi_verb_ping, xi_verb_echo, xi_verb_doctor;

/* Say what is wrong with the command line, and where help is. Returns XI_EXIT_USAGE. */
int xi_usage(const char *verb, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
