/* SPDX-License-Identifier: MIT */
#include "tools/common/clock.h"

#include <stdio.h>
#include <string.h>

double xi_ns_per_tick = 1;

#if defined(__x86_64__)
int xi_ticks_by_tsc;

/* The kernel uses the TSC as its clock only if it found it constant and in step on all cores. */
static int kernel_trusts_tsc(void)
{
	FILE *f = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "r");
	char name[32] = "";

	if (!f)
		return 0;
	if (!fgets(name, sizeof(name), f))
		name[0] = 0;
	(void)fclose(f);
	return !strncmp(name, "tsc", 3);
}

void xi_ticks_init(void)
{
	uint64_t ns, tsc;

	if (!kernel_trusts_tsc())
		return;
	/* 20 ms leave an error below 1 in 100,000. */
	ns = xi_now_ns();
	tsc = __rdtsc();
	while (xi_now_ns() - ns < 20000000)
		;
	xi_ns_per_tick = (double)(xi_now_ns() - ns) / (double)(__rdtsc() - tsc);
	xi_ticks_by_tsc = 1;
}
#else
void xi_ticks_init(void)
{
}
#endif
