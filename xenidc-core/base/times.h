/* SPDX-License-Identifier: MIT */
/* Every time that the library waits, in nanoseconds; the first five can be set in struct xenidc_times. */
#ifndef XI_BASE_TIMES_H
#define XI_BASE_TIMES_H

#include <stdint.h>

#define XI_MS ((uint64_t)1000000)
#define XI_SECOND ((uint64_t)1000000000)

#define XI_HEARTBEAT (5 * XI_SECOND)
#define XI_STALLED (10 * XI_SECOND)
#define XI_DEAD (20 * XI_SECOND)
#define XI_CLOSE (1 * XI_SECOND)
#define XI_CONNECT (10 * XI_SECOND)

#define XI_BACKOFF_MIN (100 * XI_MS)
#define XI_BACKOFF_MAX (10 * XI_SECOND)

/* A loop that did not run for this long was suspended or stopped: silence during it is forgiven once. */
#define XI_SUSPEND_JUMP (2 * XI_SECOND)
/* ADAPTIVE: the longest look before a sleep. */
#define XI_SPIN_MAX (50 * (uint64_t)1000)
/* Sleeps of a busy loop may leave lazy descriptors unseen for this long; it is what a wake-up by futex saves, times
 * 200. */
#define XI_FUTEX_TIER (5 * XI_MS)
/* A peer hung up without a word: how long the news of its death, which comes another way, is waited for. */
#define XI_DEATH_GRACE (200 * XI_MS)

#endif
