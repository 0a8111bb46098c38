/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "check.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TEST_SECONDS 30
#define FACTOR_MAX 1000

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static const char *running = "";

/* Not exit(): what was registered to run at the end may need what the failed test left behind. */
static void end(int status)
{
	fflush(NULL);
	_exit(status);
}

void check_failed(const char *file, int line, const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fprintf(stderr, "%s:%d: %s%s", file, line, running, *running ? ": " : "");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	end(1);
	abort();
}

void check_equal(const char *file, int line, const char *what, intmax_t got, const char *wanted, intmax_t want)
{
	if (got != want)
		check_failed(file, line, "%s is %jd (%#jx), not %s, %jd (%#jx)", what, got, (uintmax_t)got, wanted,
			     want, (uintmax_t)want);
}

void check_string(const char *file, int line, const char *what, const char *got, const char *want)
{
	if (strcmp(got, want))
		check_failed(file, line, "%s is \"%s\", not \"%s\"", what, got, want);
}

void check_has(const char *file, int line, const char *what, const char *text, const char *part)
{
	if (!strstr(text, part))
		check_failed(file, line, "%s is \"%s\", which lacks \"%s\"", what, text, part);
}

void check_bytes(const char *file, int line, const char *what, const void *got, const void *want, size_t length)
{
	const unsigned char *a = got, *b = want;

	for (size_t i = 0; i < length; i++)
		if (a[i] != b[i])
			check_failed(file, line, "%s differs at byte %zu of %zu: %#04x, not %#04x", what, i, length,
				     a[i], b[i]);
}

void check_skip(const char *format, ...)
{
	va_list args;

	printf("skipped: ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	end(77);
	abort();
}

unsigned check_factor(void)
{
	const char *text = getenv("XENIDC_TEST_FACTOR");
	long factor = text ? strtol(text, NULL, 10) : 0;

	if (factor > 0 && factor <= FACTOR_MAX)
		return (unsigned)factor;
	return SANITIZED ? 5 : 1;
}

uint64_t check_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void out_of_time(int number)
{
	static const char text[] = ": ran out of time\n";

	(void)number;
	if (write(STDERR_FILENO, running, strlen(running)) < 0 || write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(1);
	_exit(1);
}

void check_limit(const char *what, unsigned seconds)
{
	struct sigaction action = { .sa_handler = out_of_time };

	running = what;
	CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
	alarm(seconds * check_factor());
}

pid_t check_fork(void)
{
	pid_t parent = getpid(), pid;

	fflush(NULL);
	pid = fork();
	if (pid < 0)
		check_failed(__FILE__, __LINE__, "fork: %s", strerror(errno));
	/* The parent may have ended before prctl(). */
	if (pid == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent))
		_exit(1);
	return pid;
}

int check_wait(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			check_failed(__FILE__, __LINE__, "waitpid: %s", strerror(errno));
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static bool wanted(const char *name, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], name))
			return true;
	return argc < 2;
}

int check_main(int argc, char **argv, const struct check_test *tests, size_t count)
{
	size_t ran = 0;
	bool list = argc == 2 && !strcmp(argv[1], "--list");

	for (size_t i = 0; i < count; i++) {
		if (list) {
			puts(tests[i].name);
			continue;
		}
		if (!wanted(tests[i].name, argc, argv))
			continue;
		check_limit(tests[i].name, TEST_SECONDS);
		tests[i].run();
		ran++;
	}
	check_limit("", 0);
	if (!list && !ran)
		check_failed(__FILE__, __LINE__, "no such test; --list tells the names");
	if (!list)
		printf("%zu tests passed\n", ran);
	return 0;
}
