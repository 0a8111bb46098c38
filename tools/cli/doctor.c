/* SPDX-License-Identifier: MIT */
#include <getopt.h>
#include <stdio.h>

#include <xenidc/xenidc.h>

#include "tools/cli/cli.h"
#include "tools/common/json.h"
#include "tools/common/text.h"

struct report {
	bool json;
	struct xi_json j;
	unsigned count[3]; /* by level */
};

static const char *const levels[] = { "ok", "note", "problem" };

static void on_line(void *user, const char *area, int level, const char *text, const char *advice)
{
	struct report *r = user;

	level = level < 0 ? 0 : level > 2 ? 2 : level;
	r->count[level]++;
	if (r->json) {
		xi_json_open(&r->j, NULL);
		xi_json_text(&r->j, "area", area);
		xi_json_text(&r->j, "level", levels[level]);
		xi_json_text(&r->j, "text", text);
		xi_json_text(&r->j, "advice", advice);
		xi_json_close(&r->j);
		return;
	}
	(void)printf("%-8s %-10s ", levels[level], area);
	xi_print_safe(stdout, text);
	if (advice) {
		(void)printf("\n%19s ", "->");
		xi_print_safe(stdout, advice);
	}
	(void)putchar('\n');
}

static int run(int argc, char **argv)
{
	static const struct option options[] = { { "json", no_argument, NULL, 'j' }, { NULL, 0, NULL, 0 } };
	struct report r = { .j = { .to = stdout } };
	int o;

	opterr = 0;
	while ((o = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (o != 'j')
			return xi_usage("doctor", "cannot use '%.40s'", argv[optind - 1]);
		r.json = true;
	}
	if (optind != argc)
		return xi_usage("doctor", "takes no argument, got '%.40s'", argv[optind]);
	if (r.json) {
		xi_json_open(&r.j, NULL);
		xi_json_text(&r.j, "version", xenidc_version());
		xi_json_open_list(&r.j, "checks");
	}
	xenidc_diagnose(on_line, &r);
	if (r.json) {
		xi_json_close(&r.j);
		xi_json_uint(&r.j, "ok", r.count[0]);
		xi_json_uint(&r.j, "notes", r.count[1]);
		xi_json_uint(&r.j, "problems", r.count[2]);
		xi_json_close(&r.j);
	} else {
		(void)printf("%u ok, %u to know, %u problem%s\n", r.count[0], r.count[1], r.count[2],
			     r.count[2] == 1 ? "" : "s");
	}
	return r.count[2] ? XI_EXIT_PROBLEM : XI_EXIT_OK;
}

const struct xi_verb xi_verb_doctor = {
	.name = "doctor",
	.arguments = "[--json]",
	.summary = "Check what this machine offers to each transport, and say what to do about what is missing",
	.help = "Each line is one thing that was checked: ok, note (worth knowing) or problem.\n"
		"Exit code 0: no problem. 1: there is one.\n",
	.run = run,
};
