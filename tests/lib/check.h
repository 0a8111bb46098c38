/* SPDX-License-Identifier: MIT */
/*
 * What every test uses. A failed check says file, line and both values, and ends the process with status 1.
 *
 *     static void test_something(void)
 *     {
 *             CHECK_EQ(2 + 2, 4);
 *     }
 *     CHECK_MAIN(TEST(test_something))
 *
 * `test_x` runs all, `test_x NAME...` those, `test_x --list` prints the names. Each test has a time limit; waiting for
 * something uses check_factor(), so that slow machines and sanitizers only take longer.
 */
#ifndef TESTS_LIB_CHECK_H
#define TESTS_LIB_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CHECK(condition) ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, "%s", #condition))

/* Integers of any kind; both values are printed. CHECK_OP(n, <=, 4). */
#define CHECK_OP(got, op, want)                                                                                        \
	do {                                                                                                           \
		intmax_t got_ = (intmax_t)(got), want_ = (intmax_t)(want);                                             \
		if (!(got_ op want_))                                                                                  \
			check_failed(__FILE__, __LINE__, "%s " #op " %s: got %jd (%#jx), not " #op " %jd (%#jx)",      \
				     #got, #want, got_, (uintmax_t)got_, want_, (uintmax_t)want_);                     \
	} while (0)
#define CHECK_EQ(got, want) check_equal(__FILE__, __LINE__, #got, (intmax_t)(got), #want, (intmax_t)(want))

/* Strings: equal; the one holds the other. Bytes: equal, else the first difference is told. */
#define CHECK_STR(got, want) check_string(__FILE__, __LINE__, #got, got, want)
#define CHECK_HAS(text, part) check_has(__FILE__, __LINE__, #text, text, part)
#define CHECK_MEM(got, want, length) check_bytes(__FILE__, __LINE__, #got, got, want, length)

void check_failed(const char *file, int line, const char *format, ...) __attribute__((noreturn, format(printf, 3, 4)));
void check_equal(const char *file, int line, const char *what, intmax_t got, const char *wanted, intmax_t want);
void check_string(const char *file, int line, const char *what, const char *got, const char *want);
void check_has(const char *file, int line, const char *what, const char *text, const char *part);
void check_bytes(const char *file, int line, const char *what, const void *got, const void *want, size_t length);

/* This machine cannot run the test (status 77; it has to stand in tests/expected-skips). */
void check_skip(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* How many times longer than on an idle machine something may take: XENIDC_TEST_FACTOR, or by the kind of build. */
unsigned check_factor(void);
/* CLOCK_BOOTTIME, ns, as the library's. */
uint64_t check_now(void);
/* End the process with a message unless this is called again within `seconds` times the factor; 0: no limit. */
void check_limit(const char *what, unsigned seconds);

/* fork(); the child is killed when its parent ends, and a failed check in it ends it with status 1. */
pid_t check_fork(void);
/* Wait for the end of a child: its exit status, or minus the signal that killed it. */
int check_wait(pid_t pid);

struct check_test {
	const char *name;
	void (*run)(void);
};
#define TEST(function)                                                                                                 \
	{                                                                                                              \
		.name = #function, .run = (function)                                                                   \
	}
#define CHECK_MAIN(...)                                                                                                \
	int main(int argc, char **argv)                                                                                \
	{                                                                                                              \
		static const struct check_test tests[] = { __VA_ARGS__ };                                              \
		return check_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));                                \
	}
int check_main(int argc, char **argv, const struct check_test *tests, size_t count);

#endif
