/* SPDX-License-Identifier: MIT */
/* Where processes run, and what the machine took from them. */
#ifndef XI_TOOLS_PLACE_H
#define XI_TOOLS_PLACE_H

#include <stdbool.h>
#include <stdint.h>

/* Pin the calling process; -1 changes nothing. False: not allowed. */
bool xi_pin(int cpu);
/* The first two CPUs that this process may use; the same one twice if there is no other. */
void xi_default_cpus(int cpu[2]);
/* Seconds that the hypervisor took from all CPUs since boot. */
double xi_steal_s(void);
/* Times that this process went to sleep by itself. */
uint64_t xi_sleeps(void);

#endif
