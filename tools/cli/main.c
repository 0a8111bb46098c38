/* SPDX-License-Identifier: MIT */
/* The table of verbs, and what is not worth a file: help and version. */
#include <stdio.h>
#include <string.h>

#include <xenidc/xenidc.h>

#include "tools/cli/cli.h"

static const struct xi_verb *const verbs[] = { &xi_verb_ping, &xi_verb_echo, &xi_verb_doctor };
#define VERBS (sizeof(verbs) / sizeof(verbs[0]))

int xi_usage(const char *verb, const char *format, ...)
{
	va_list args;

	(void)fprintf(stderr, "xenidc%s%s: ", verb ? " " : "", verb ? verb : "");
	va_start(args, format);
	(void)vfprintf(stderr, format, args);
	va_end(args);
	(void)fprintf(stderr, "; see `xenidc help%s%s`\n", verb ? " " : "", verb ? verb : "");
	return XI_EXIT_USAGE;
}

static const struct xi_verb *find(const char *name)
{
	for (size_t i = 0; i < VERBS; i++)
		if (!strcmp(verbs[i]->name, name))
			return verbs[i];
	return NULL;
}

static int help_exits(void)
{
	static const struct {
		int number;
		const char *text;
	} exits[] = {
#define XI_EXIT_ROW(name, number, text) { (number), (text) },
		XI_EXITS(XI_EXIT_ROW)
#undef XI_EXIT_ROW
	};

	(void)puts("Exit codes:");
	for (size_t i = 0; i < sizeof(exits) / sizeof(exits[0]); i++)
		(void)printf("  %d  %s\n", exits[i].number, exits[i].text);
	return XI_EXIT_OK;
}

static int help_addresses(void)
{
	(void)puts(
		"Addresses:\n"
		"  shm:NAME                   same host, shared memory. NAME: 1 to 64 of A-Z a-z 0-9 . _ -\n"
		"                             the socket stands in $XDG_RUNTIME_DIR/xenidc, for root in /run/xenidc\n"
		"  tcp:HOST[:PORT][/SERVICE]  a name, an IPv4 address or [IPv6]; the default port is 47615. A "
		"listener\n"
		"                             without HOST (tcp: or tcp::PORT) listens on loopback only, tcp:* "
		"everywhere");
	return XI_EXIT_OK;
}

static int help_all(void)
{
	(void)puts("xenidc: split drivers over any transport\n\nUsage:");
	for (size_t i = 0; i < VERBS; i++)
		(void)printf("  xenidc %-7s %s\n      %s\n", verbs[i]->name, verbs[i]->arguments, verbs[i]->summary);
	(void)puts("  xenidc help    [VERB | addresses | exits]\n"
		   "  xenidc --version\n\n"
		   "Results go to stdout, as text for people or with --json as one JSON object a line; what went wrong "
		   "goes\n"
		   "to stderr (with --json also into the object, as \"error\"). Scripts can rely on the exit codes.");
	return XI_EXIT_OK;
}

static int help(int argc, char **argv)
{
	const struct xi_verb *verb;

	if (argc < 2)
		return help_all();
	if (!strcmp(argv[1], "exits"))
		return help_exits();
	if (!strcmp(argv[1], "addresses"))
		return help_addresses();
	verb = find(argv[1]);
	if (!verb)
		return xi_usage(NULL, "there is no help on '%.40s'", argv[1]);
	(void)printf("Usage: xenidc %s %s\n\n%s.\n\n%s", verb->name, verb->arguments, verb->summary, verb->help);
	return XI_EXIT_OK;
}

int main(int argc, char **argv)
{
	const struct xi_verb *verb;

	if (argc < 2) {
		(void)help_all();
		return XI_EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--version")) {
		(void)printf("xenidc %s\n", xenidc_version());
		return XI_EXIT_OK;
	}
	if (!strcmp(argv[1], "help") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return help(argc - 1, argv + 1);
	verb = find(argv[1]);
	if (!verb)
		return xi_usage(NULL, "there is no verb '%.40s'", argv[1]);
	if (argc == 3 && (!strcmp(argv[2], "--help") || !strcmp(argv[2], "-h"))) {
		argv[2] = argv[1];
		return help(2, argv + 1);
	}
	return verb->run(argc - 1, argv + 1);
}
