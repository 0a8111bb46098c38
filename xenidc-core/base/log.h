/* SPDX-License-Identifier: MIT */
/* Log lines (rate-limited, to the client's function) and the frame trace (XENIDC_TRACE=frames, to stderr). */
#ifndef XI_BASE_LOG_H
#define XI_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include <xenidc/xenidc.h>

void xi_log(int priority, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Is the trace on? Read once from the environment. */
bool xi_trace_frames(void);
void xi_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Fill in `err` (may be NULL); the text is made printable and cut to fit. Returns `code`. */
int xi_error(struct xenidc_error *err, int code, enum xenidc_reason reason, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

#endif
