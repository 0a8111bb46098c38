/* SPDX-License-Identifier: MIT */
/* Log lines, the frame trace, and the text of errors. */
#include "log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "assert.h"
#include "cursor.h"
#include "limits.h"
#include "os.h"
#include "times.h"

#define LINE_MAX_LENGTH 512

static xenidc_log_fn *_Atomic log_function;
static _Atomic uint64_t window_start; /* of the second in which `window_lines` were written */
static _Atomic uint32_t window_lines;
static _Atomic uint64_t lines_dropped;
static _Atomic int trace_state; /* 0 not looked yet, 1 off, 2 on */

/* Format, make printable, and show by "..." that something was cut off. */
__attribute__((format(printf, 3, 0))) static void format_line(char *to, size_t size, const char *format, va_list args)
{
	XI_ASSERT(size > 4);
	int length = vsnprintf(to, size, format, args);
	if (length < 0)
		to[0] = 0;
	else if ((size_t)length >= size)
		memcpy(to + size - 4, "...", 4);
	xi_text_printable(to);
}

void xenidc_set_log(xenidc_log_fn *fn)
{
	atomic_store(&log_function, fn);
}

/* True: this line may be written. Threads that race for a new window may give it a line or two less, never more. */
static bool take_place(void)
{
	uint64_t now = xi_os->clock();
	uint64_t start = atomic_load(&window_start);
	if (now - start >= XI_SECOND && atomic_compare_exchange_strong(&window_start, &start, now))
		atomic_store(&window_lines, 0);
	return atomic_fetch_add(&window_lines, 1) < XI_LOG_RATE;
}

void xi_log(int priority, const char *format, ...)
{
	char line[LINE_MAX_LENGTH];
	char note[64];
	xenidc_log_fn *fn = atomic_load(&log_function);
	va_list args;
	if (!fn)
		return;
	if (!take_place()) {
		atomic_fetch_add(&lines_dropped, 1);
		return;
	}
	uint64_t dropped = atomic_exchange(&lines_dropped, 0);
	int used = 0;
	if (dropped)
		used = snprintf(note, sizeof(note), "(%llu lines left out) ", (unsigned long long)dropped);
	XI_ASSERT(used >= 0 && (size_t)used < sizeof(note));
	memcpy(line, note, (size_t)used);
	va_start(args, format);
	format_line(line + used, sizeof(line) - (size_t)used, format, args);
	va_end(args);
	fn(priority, line);
}

bool xi_trace_frames(void)
{
	int state = atomic_load_explicit(&trace_state, memory_order_relaxed);
	if (!state) {
		const char *what = xi_os->getenv("XENIDC_TRACE");
		state = what && !strcmp(what, "frames") ? 2 : 1;
		atomic_store_explicit(&trace_state, state, memory_order_relaxed);
	}
	return state == 2;
}

void xi_trace(const char *format, ...)
{
	char line[LINE_MAX_LENGTH];
	va_list args;
	va_start(args, format);
	format_line(line, sizeof(line), format, args);
	va_end(args);
	fprintf(stderr, "xenidc: %s\n", line);
}

int xi_error(struct xenidc_error *err, int code, enum xenidc_reason reason, const char *format, ...)
{
	char line[XENIDC_ERROR_TEXT_MAX];
	va_list args;
	if (!err)
		return code;
	/* By way of a line of our own: an argument may be the old text of `err`. */
	va_start(args, format);
	format_line(line, sizeof(line), format, args);
	va_end(args);
	err->code = code;
	err->reason = reason;
	err->by_peer = false;
	memcpy(err->text, line, sizeof(line));
	return code;
}
