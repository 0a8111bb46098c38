/* SPDX-License-Identifier: MIT */
/* Log lines, errors, object counters, and what an assertion says. */
#include "tests/lib/check.h"
#include "xenidc-core/base/assert.h"
#include "xenidc-core/base/counters.h"
#include "xenidc-core/base/limits.h"
#include "xenidc-core/base/log.h"
#include "xenidc-core/base/os.h"
#include "xenidc-core/base/times.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char last[1024];
static int last_priority;
static unsigned lines;

static void keep(int priority, const char *line)
{
	CHECK(strlen(line) < sizeof(last));
	strcpy(last, line);
	last_priority = priority;
	lines++;
}

static uint64_t fake_now = 1000 * XI_SECOND;
static uint64_t fake_clock(void)
{
	return fake_now;
}

static void test_log_rate(void)
{
	struct xi_os os = *xi_os;
	const struct xi_os *real = xi_os;
	os.clock = fake_clock;
	xi_os = &os;
	xi_log(3, "nobody listens");
	xenidc_set_log(keep);
	xi_log(4, "peer %d\nsays \x1b[2J", 7);
	CHECK_STR(last, "peer 7?says ?[2J");
	CHECK_EQ(last_priority, 4);
	for (int i = 0; i < 1000; i++)
		xi_log(4, "line %d", i);
	CHECK_EQ(lines, XI_LOG_RATE);
	fake_now += XI_SECOND - 1;
	xi_log(4, "too early");
	CHECK_EQ(lines, XI_LOG_RATE);
	fake_now += 1;
	xi_log(4, "again");
	CHECK_EQ(lines, XI_LOG_RATE + 1);
	CHECK_STR(last, "(992 lines left out) again");
	xenidc_set_log(NULL);
	xi_os = real;
}

static void test_long_line(void)
{
	char text[2000];
	memset(text, 'x', sizeof(text));
	text[1999] = 0;
	xenidc_set_log(keep);
	xi_log(4, "%s", text);
	CHECK_OP(strlen(last), <, 600u);
	CHECK_HAS(last, "xxx...");
	xenidc_set_log(NULL);
}

static void test_error(void)
{
	struct xenidc_error err = { .by_peer = true };
	char text[2000];
	CHECK_EQ(xi_error(NULL, -EIO, XENIDC_REASON_LOST, "x"), -EIO);
	CHECK_EQ(xi_error(&err, -EINVAL, XENIDC_REASON_ADDRESS, "'%s' is no\taddress", "a\x80"), -EINVAL);
	CHECK_EQ(err.code, -EINVAL);
	CHECK_EQ(err.reason, XENIDC_REASON_ADDRESS);
	CHECK(!err.by_peer);
	CHECK_STR(err.text, "'a?' is no?address");
	/* An error can be wrapped in itself. */
	CHECK_EQ(xi_error(&err, err.code, err.reason, "cannot dial: %s", err.text), -EINVAL);
	CHECK_STR(err.text, "cannot dial: 'a?' is no?address");
	memset(text, 'y', sizeof(text));
	text[1999] = 0;
	xi_error(&err, -EIO, XENIDC_REASON_LOST, "%s", text);
	CHECK_EQ(strlen(err.text), XENIDC_ERROR_TEXT_MAX - 1);
	CHECK_HAS(err.text, "yy...");
}

/* What a child wrote to stderr. */
static void child_says(void (*run)(void), int want_status, char *text, size_t size)
{
	int fds[2];
	CHECK_EQ(pipe(fds), 0);
	pid_t pid = check_fork();
	if (!pid) {
		dup2(fds[1], STDERR_FILENO);
		run();
		_exit(0);
	}
	close(fds[1]);
	size_t used = 0;
	ssize_t n;
	while ((n = read(fds[0], text + used, size - 1 - used)) > 0)
		used += (size_t)n;
	text[used] = 0;
	close(fds[0]);
	CHECK_EQ(check_wait(pid), want_status);
}

static void trace_on(void)
{
	CHECK_EQ(setenv("XENIDC_TRACE", "frames", 1), 0);
	CHECK(xi_trace_frames());
	xi_trace("out %u", 5);
}

static void trace_off(void)
{
	CHECK_EQ(setenv("XENIDC_TRACE", "other", 1), 0);
	CHECK(!xi_trace_frames());
}

static void broken(void)
{
	XI_ASSERT(1 + 1 == 3);
}

static void test_stderr(void)
{
	char text[1000];
	child_says(trace_on, 0, text, sizeof(text));
	CHECK_STR(text, "xenidc: out 5\n");
	child_says(trace_off, 0, text, sizeof(text));
	CHECK_STR(text, "");
	child_says(broken, -SIGABRT, text, sizeof(text));
	CHECK_HAS(text, "1 + 1 == 3");
	CHECK_HAS(text, "test_log.c");
}

static void test_counters(void)
{
	CHECK_EQ(xi_alive(XI_OBJECT_REGION), 0);
	xi_created(XI_OBJECT_REGION);
	xi_created(XI_OBJECT_REGION);
	xi_destroyed(XI_OBJECT_REGION);
	CHECK_EQ(xi_alive(XI_OBJECT_REGION), 1);
	CHECK_EQ(xi_alive(XI_OBJECT_CONN), 0);
	xi_destroyed(XI_OBJECT_REGION);
	CHECK_STR(xi_object_name(XI_OBJECT_REGION), "REGION");
}

CHECK_MAIN(TEST(test_log_rate), TEST(test_long_line), TEST(test_error), TEST(test_stderr), TEST(test_counters))
