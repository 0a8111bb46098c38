/* SPDX-License-Identifier: MIT */
/* Numbers and untrusted text, in and out. */
#ifndef XI_TOOLS_TEXT_H
#define XI_TOOLS_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Print text that came from elsewhere: whatever a terminal could act on comes out as \xNN. */
void xi_print_safe(FILE *to, const char *text);

/* "87 ns", "1.23 us", "45.6 ms", "7.89 s". `to` has XI_HUMAN bytes and is returned. */
#define XI_HUMAN 32
const char *xi_human_ns(char *to, double ns);
/* "512 B", "64 KiB", "1.5 MiB". */
const char *xi_human_bytes(char *to, double bytes);
/* "931 /s", "4.21 k/s", "9.87 M/s". */
const char *xi_human_rate(char *to, double per_s);
/* "3.21 GB/s": decimal, as networks count. */
const char *xi_human_bandwidth(char *to, double bytes_per_s);

/*
 * Numbers as people type them; false if that is not one, or beyond [min, max].
 * Counts: 100, 10k, 5M (decimal). Sizes: 8, 64K, 64KiB, 1M (binary). Seconds: 2, 0.5, 250ms, 100us.
 */
bool xi_parse_count(const char *text, uint64_t min, uint64_t max, uint64_t *ret);
bool xi_parse_size(const char *text, uint64_t min, uint64_t max, uint64_t *ret);
bool xi_parse_seconds(const char *text, double min, double max, double *ret);

#endif
