/* SPDX-License-Identifier: MIT */
#include "tests/lib/check.h"
#include "xenidc-core/base/failpoint.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* A child that passes loop_armed up to 5 times; how it ends tells at which pass it was killed. */
static int passes(const char *text, bool by_environment)
{
	pid_t pid = check_fork();
	if (!pid) {
		if (by_environment)
			CHECK_EQ(setenv("XENIDC_FAILPOINT", text, 1), 0);
		else
			CHECK(xi_failpoint_set(text));
		for (int i = 0; i < 5; i++) {
			XI_FAILPOINT(loop_woken);
			XI_FAILPOINT(loop_armed);
		}
		_exit(0);
	}
	return check_wait(pid);
}

static void test_kill(void)
{
	CHECK_EQ(passes("loop_armed:1:kill", true), -SIGKILL);
	CHECK_EQ(passes("loop_armed:5:kill", true), -SIGKILL);
	CHECK_EQ(passes("loop_armed:6:kill", true), 0);
	CHECK_EQ(passes("loop_armed:5:kill", false), -SIGKILL);
}

static void test_stop(void)
{
	int status;
	pid_t pid = check_fork();
	if (!pid) {
		CHECK(xi_failpoint_set("loop_armed:2:stop"));
		XI_FAILPOINT(loop_armed);
		XI_FAILPOINT(loop_armed);
		_exit(3);
	}
	CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
	CHECK(WIFSTOPPED(status));
	CHECK_EQ(kill(pid, SIGCONT), 0);
	CHECK_EQ(check_wait(pid), 3);
}

/* A typing error is an error, not a test that passes. */
static void test_mistakes(void)
{
	static const char *const wrong[] = { "",
					     "loop_armed",
					     "loop_armed:1",
					     "loop_armed:0:kill",
					     "loop:1:kill",
					     "loop_armed:1:die",
					     "loop_armed:-1:kill",
					     "loop_armed::kill",
					     "loop_armedX:1:kill" };
	const size_t count = sizeof(wrong) / sizeof(wrong[0]);
	/* First all by the environment: it is read once. */
	for (size_t i = 0; i < count; i++)
		CHECK_EQ(passes(wrong[i], true), -SIGABRT);
	for (size_t i = 0; i < count; i++)
		CHECK(!xi_failpoint_set(wrong[i]));
	CHECK(xi_failpoint_set(NULL));
}

static void test_names(void)
{
	CHECK_STR(xi_failpoint_names[XI_FAILPOINT_loop_armed], "loop_armed");
	CHECK(!xi_failpoint_names[XI_FAILPOINTS_END]);
	for (int i = 0; i < XI_FAILPOINTS_END; i++)
		for (int j = 0; j < i; j++)
			CHECK(strcmp(xi_failpoint_names[i], xi_failpoint_names[j]) != 0);
}

CHECK_MAIN(TEST(test_kill), TEST(test_stop), TEST(test_mistakes), TEST(test_names))
