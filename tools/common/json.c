/* SPDX-License-Identifier: MIT */
#include "tools/common/json.h"

#include <inttypes.h>
#include <math.h>

static void quoted(FILE *to, const char *text)
{
	(void)putc('"', to);
	for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
		if (*c == '"' || *c == '\\')
			(void)fprintf(to, "\\%c", *c);
		else if (*c >= 0x20 && *c < 0x7f)
			(void)putc(*c, to);
		else
			(void)fprintf(to, "\\u%04x", *c);
	}
	(void)putc('"', to);
}

static void lead(struct xi_json *j, const char *key)
{
	if (j->comma)
		(void)fputs(", ", j->to);
	j->comma = true;
	if (key) {
		quoted(j->to, key);
		(void)fputs(": ", j->to);
	}
}

static void open_with(struct xi_json *j, const char *key, bool list)
{
	lead(j, key);
	(void)putc(list ? '[' : '{', j->to);
	j->is_list = j->is_list << 1 | (list ? 1 : 0);
	j->depth++;
	j->comma = false;
}

void xi_json_open(struct xi_json *j, const char *key)
{
	open_with(j, key, false);
}

void xi_json_open_list(struct xi_json *j, const char *key)
{
	open_with(j, key, true);
}

void xi_json_close(struct xi_json *j)
{
	(void)putc(j->is_list & 1 ? ']' : '}', j->to);
	j->is_list >>= 1;
	j->depth--;
	j->comma = true;
	if (!j->depth) {
		(void)putc('\n', j->to);
		(void)fflush(j->to);
		j->comma = false;
	}
}

void xi_json_text(struct xi_json *j, const char *key, const char *text)
{
	lead(j, key);
	if (text)
		quoted(j->to, text);
	else
		(void)fputs("null", j->to);
}

void xi_json_uint(struct xi_json *j, const char *key, uint64_t value)
{
	lead(j, key);
	(void)fprintf(j->to, "%" PRIu64, value);
}

void xi_json_int(struct xi_json *j, const char *key, int64_t value)
{
	lead(j, key);
	(void)fprintf(j->to, "%" PRId64, value);
}

void xi_json_real(struct xi_json *j, const char *key, double value)
{
	lead(j, key);
	if (isfinite(value))
		(void)fprintf(j->to, "%.6g", value);
	else
		(void)fputs("null", j->to);
}

void xi_json_bool(struct xi_json *j, const char *key, bool value)
{
	lead(j, key);
	(void)fputs(value ? "true" : "false", j->to);
}
