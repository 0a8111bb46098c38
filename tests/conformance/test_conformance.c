/* SPDX-License-Identifier: MIT */
/*
 * Runs each case in each column, every time in a process of its own, and prints a table of pass, FAIL and n/a.
 *
 *     test_conformance [--column NAME]... [--case NAME]... [--list]
 *
 * What failed prints its output below the table. Status 0 only if nothing failed.
 */
#define _GNU_SOURCE
#include "harness.h"

#include <errno.h>
#include <ftw.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define CASE_SECONDS 60
#define CHOSEN_MAX 128

const struct conformance_case cases[] = {
#define CASE(name, needs, about) { #name, about, needs, case_##name },
#include "cases.def"
#undef CASE
};
const unsigned cases_count = sizeof(cases) / sizeof(cases[0]);

static char folder[] = "/tmp/xenidc-conformance-XXXXXX";
static const char *chosen_cases[CHOSEN_MAX], *chosen_columns[CHOSEN_MAX];

static bool chosen(const char *const *list, const char *name)
{
	for (unsigned i = 0; list[i]; i++)
		if (!strcmp(list[i], name))
			return true;
	return !list[0];
}

/* In a process of its own, whose output goes to `output`. Does not return. */
static void run_case(const struct conformance_case *c, const struct column *column, FILE *output)
{
	static struct pair pair;

	dup2(fileno(output), STDOUT_FILENO);
	dup2(fileno(output), STDERR_FILENO);
	setpgid(0, 0);
	check_limit(c->name, CASE_SECONDS);
	column_enter(column);
	if (column_lacks(column, c->needs)) {
		puts(column_lacks(column, c->needs));
		fflush(stdout);
		_exit(77);
	}
	pair_init(&pair, column);
	c->run(&pair);
	pair_end(&pair);
	fflush(stdout);
	exit(0);
}

static void print_output(const char *name, const char *column, FILE *output)
{
	char line[512];

	printf("\n--- %s, %s\n", name, column);
	rewind(output);
	while (fgets(line, sizeof(line), output))
		printf("    %s", line);
}

/* Returns 'p' for pass, 'F', or '-' for n/a. The output of what failed stays in *ret_output. */
static char run(const struct conformance_case *c, const struct column *column, FILE **ret_output)
{
	FILE *output = tmpfile();
	pid_t pid;
	int status;

	CHECK(output);
	fflush(NULL);
	pid = fork();
	CHECK_OP(pid, >=, 0);
	if (pid == 0)
		run_case(c, column, output);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	kill(-pid, SIGKILL); /* what it has left behind */
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		fclose(output);
		return 'p';
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		*ret_output = output;
		return '-';
	}
	if (WIFSIGNALED(status)) {
		fseek(output, 0, SEEK_END);
		fprintf(output, "killed by signal %d, %s\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
	}
	*ret_output = output;
	return 'F';
}

static const char *word(char result)
{
	return result == 'p' ? "pass" : result == 'F' ? "FAIL" : "n/a";
}

/* Columns that can be told from each other by name only. */
#define COLUMNS_MAX 8
static FILE *outputs[256][COLUMNS_MAX];
static char results[256][COLUMNS_MAX];

static void print_not_applicable(void)
{
	char line[256];

	for (unsigned i = 0; i < cases_count; i++)
		for (unsigned k = 0; columns[k].name; k++)
			if (results[i][k] == '-') {
				rewind(outputs[i][k]);
				CHECK(fgets(line, sizeof(line), outputs[i][k]));
				printf("n/a  %s, %s: %s", cases[i].name, columns[k].name, line);
			}
}

static unsigned run_all(void)
{
	unsigned failed = 0, passed = 0, missing = 0;
	uint64_t begin;

	printf("%-28s", "");
	for (unsigned k = 0; columns[k].name; k++)
		if (chosen(chosen_columns, columns[k].name))
			printf(" %-12s", columns[k].name);
	for (unsigned i = 0; i < cases_count; i++) {
		if (!chosen(chosen_cases, cases[i].name))
			continue;
		printf("\n%-28s", cases[i].name);
		begin = check_now();
		for (unsigned k = 0; columns[k].name; k++) {
			if (!chosen(chosen_columns, columns[k].name))
				continue;
			results[i][k] = run(&cases[i], &columns[k], &outputs[i][k]);
			printf(" %-12s", word(results[i][k]));
			passed += results[i][k] == 'p';
			failed += results[i][k] == 'F';
			missing += results[i][k] == '-';
		}
		printf(" %6.2f s", (double)(check_now() - begin) / 1e9);
	}
	printf("\n\n");
	print_not_applicable();
	for (unsigned i = 0; i < cases_count; i++)
		for (unsigned k = 0; columns[k].name; k++)
			if (results[i][k] == 'F')
				print_output(cases[i].name, columns[k].name, outputs[i][k]);
	printf("\n%u passed, %u failed, %u n/a\n", passed, failed, missing);
	return failed + (passed == 0);
}

static void list_cases(void)
{
	for (unsigned i = 0; i < cases_count; i++)
		printf("%-28s %s\n", cases[i].name, cases[i].about);
}

static void choose(const char **list, const char *name, bool known)
{
	unsigned n = 0;

	if (!known)
		check_failed(__FILE__, __LINE__, "there is no `%s`; --list tells the cases", name);
	while (list[n])
		n++;
	CHECK_OP(n, <, CHOSEN_MAX - 1);
	list[n] = name;
}

static bool case_known(const char *name)
{
	for (unsigned i = 0; i < cases_count; i++)
		if (!strcmp(cases[i].name, name))
			return true;
	return false;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "column", required_argument, NULL, 'c' },
		{ "case", required_argument, NULL, 'n' },
		{ "list", no_argument, NULL, 'l' },
		{ 0 },
	};
	unsigned failed;
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 'c':
			choose(chosen_columns, optarg, column_find(optarg));
			break;
		case 'n':
			choose(chosen_cases, optarg, case_known(optarg));
			break;
		case 'l':
			list_cases();
			return 0;
		default:
			return 2;
		}
	}
	CHECK_OP(cases_count, <, 256);
	CHECK(mkdtemp(folder));
	CHECK_EQ(setenv("XDG_RUNTIME_DIR", folder, 1), 0);
	failed = run_all();
	nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	return failed ? 1 : 0;
}
