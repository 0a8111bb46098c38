/* SPDX-License-Identifier: MIT */
/* What an adaptive loop learns. */
#include "tests/lib/check.h"
#include "xenidc-core/spin.h"

#define MAX 50000

/* One wait: the event comes after `gap` ns, a wake-up takes `wake`. Returns the time spent looking. */
static uint64_t wait_once(struct xi_spin *s, uint64_t gap, uint64_t wake)
{
	uint64_t bound = xi_spin_bound(s);
	CHECK(bound <= MAX);
	if (bound && gap <= bound) {
		xi_spin_looked(s, true);
		return gap;
	}
	if (bound)
		xi_spin_looked(s, false);
	xi_spin_slept(s, gap - bound + wake);
	return bound;
}

static uint64_t waits(struct xi_spin *s, unsigned n, uint64_t gap, uint64_t wake)
{
	uint64_t looked = 0;
	while (n--)
		looked += wait_once(s, gap, wake);
	return looked;
}

static void test_busy(void)
{
	struct xi_spin s;
	xi_spin_init(&s, MAX);
	/* All is found by looking. */
	CHECK_EQ(waits(&s, 1000, 3000, 20000), 1000 * 3000);
	CHECK_EQ(s.misses, 0);
}

static void test_idle(void)
{
	struct xi_spin s;
	xi_spin_init(&s, MAX);
	/* One event each 10 ms: after a few misses it sleeps at once, for ever. */
	CHECK_OP(waits(&s, 10, 10000000, 20000), <=, 4u * MAX);
	CHECK_EQ(waits(&s, 10000, 10000000, 20000), 0);
	/* Busy again: within a few short sleeps it looks, finds, and goes on looking. */
	waits(&s, 10, 3000, 20000);
	CHECK_EQ(waits(&s, 100, 3000, 20000), 100 * 3000);
}

/* The other side runs on this processor: looking never pays although all sleeps are short. */
static void test_never_pays(void)
{
	struct xi_spin s;
	xi_spin_init(&s, MAX);
	for (int i = 0; i < 1000; i++) {
		if (xi_spin_bound(&s))
			xi_spin_looked(&s, false);
		xi_spin_slept(&s, 6000);
	}
	/* In the long run one look in 64 sleeps, and none longer than one and a half wake-ups. */
	unsigned looks = 0;
	for (int i = 0; i < 6400; i++) {
		uint64_t bound = xi_spin_bound(&s);
		CHECK_OP(bound, <=, 10000u);
		looks += bound > 0;
		if (bound)
			xi_spin_looked(&s, false);
		xi_spin_slept(&s, 6000);
	}
	CHECK_OP(looks, <=, 101u);
	CHECK_OP(looks, >=, 95u);
}

static void test_calibrates(void)
{
	struct xi_spin s;
	xi_spin_init(&s, MAX);
	for (int i = 0; i < 100; i++)
		xi_spin_slept(&s, 12000);
	uint64_t bound = xi_spin_bound(&s);
	CHECK_OP(bound, >=, 17000u);
	CHECK_OP(bound, <=, 19000u);
	/* Sleeps that were over at once do not make it blind. */
	for (int i = 0; i < 1000; i++)
		xi_spin_slept(&s, 0);
	CHECK_OP(xi_spin_bound(&s), >=, 1000u);
}

static void test_limits(void)
{
	struct xi_spin s;
	xi_spin_init(&s, 0);
	CHECK_EQ(xi_spin_bound(&s), 0);
	xi_spin_slept(&s, 100);
	CHECK_EQ(xi_spin_bound(&s), 0);
	xi_spin_init(&s, 700);
	CHECK_EQ(xi_spin_bound(&s), 700);
}

CHECK_MAIN(TEST(test_busy), TEST(test_idle), TEST(test_never_pays), TEST(test_calibrates), TEST(test_limits))
