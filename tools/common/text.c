/* SPDX-License-Identifier: MIT */
#include "tools/common/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void xi_print_safe(FILE *to, const char *text)
{
	for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
		/* UTF-8 would need a decoder to be judged, so it is shown as bytes. */
		if (*c >= 0x20 && *c < 0x7f)
			(void)putc(*c, to);
		else
			(void)fprintf(to, "\\x%02x", *c);
	}
}

struct unit {
	double factor;
	const char *name;
};

/* Three significant digits of `value` in the largest unit that leaves it at 1 or more. */
static const char *human(char *to, double value, const struct unit *units)
{
	while (units[1].name && value >= units[1].factor)
		units++;
	value /= units->factor;
	(void)snprintf(to, XI_HUMAN, "%.*f %s", value < 9.995 ? 2 : value < 99.95 ? 1 : 0, value, units->name);
	return to;
}

const char *xi_human_ns(char *to, double ns)
{
	static const struct unit units[] = { { 1, "ns" }, { 1e3, "us" }, { 1e6, "ms" }, { 1e9, "s" }, { 0, NULL } };

	return human(to, ns, units);
}

const char *xi_human_bytes(char *to, double bytes)
{
	static const struct unit units[] = {
		{ 1, "B" }, { 1024, "KiB" }, { 1024 * 1024, "MiB" }, { 1024.0 * 1024 * 1024, "GiB" }, { 0, NULL }
	};
	char *point;

	(void)human(to, bytes, units);
	/* Sizes are whole most of the time: "64 KiB", not "64.0 KiB". */
	point = strchr(to, '.');
	if (point) {
		size_t zeros = strspn(point + 1, "0");
		if (point[1 + zeros] == ' ')
			memmove(point, point + 1 + zeros, strlen(point + 1 + zeros) + 1);
	}
	return to;
}

const char *xi_human_rate(char *to, double per_s)
{
	static const struct unit units[] = { { 1, "/s" }, { 1e3, "k/s" }, { 1e6, "M/s" }, { 0, NULL } };

	return human(to, per_s, units);
}

const char *xi_human_bandwidth(char *to, double bytes_per_s)
{
	static const struct unit units[] = {
		{ 1, "B/s" }, { 1e3, "kB/s" }, { 1e6, "MB/s" }, { 1e9, "GB/s" }, { 0, NULL }
	};

	return human(to, bytes_per_s, units);
}

/* Parse "NUMBER[SUFFIX]" with a table of suffixes; the first one is "". */
static bool parse(const char *text, const struct unit *units, double *ret)
{
	char *end;
	double value;

	if (*text != '.' && (*text < '0' || *text > '9')) /* no sign, no space, no "inf" */
		return false;
	errno = 0;
	value = strtod(text, &end);
	if (errno)
		return false;
	for (; units->name; units++) {
		if (!strcmp(end, units->name)) {
			*ret = value * units->factor;
			return true;
		}
	}
	return false;
}

static bool whole(double value, uint64_t min, uint64_t max, uint64_t *ret)
{
	if (value < (double)min || value > (double)max || value != (double)(uint64_t)value)
		return false;
	*ret = (uint64_t)value;
	return true;
}

bool xi_parse_count(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
	static const struct unit units[] = { { 1, "" },    { 1e3, "k" }, { 1e3, "K" }, { 1e6, "m" },
					     { 1e6, "M" }, { 1e9, "g" }, { 1e9, "G" }, { 0, NULL } };
	double value;

	return parse(text, units, &value) && whole(value, min, max, ret);
}

bool xi_parse_size(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
	static const struct unit units[] = { { 1, "" },
					     { 1, "B" },
					     { 1024, "k" },
					     { 1024, "K" },
					     { 1024, "KiB" },
					     { 1024 * 1024, "m" },
					     { 1024 * 1024, "M" },
					     { 1024 * 1024, "MiB" },
					     { 1024.0 * 1024 * 1024, "G" },
					     { 1024.0 * 1024 * 1024, "GiB" },
					     { 0, NULL } };
	double value;

	return parse(text, units, &value) && whole(value, min, max, ret);
}

bool xi_parse_seconds(const char *text, double min, double max, double *ret)
{
	static const struct unit units[] = { { 1, "" }, { 1, "s" }, { 1e-3, "ms" }, { 1e-6, "us" }, { 0, NULL } };
	double value;

	if (!parse(text, units, &value) || value < min || value > max)
		return false;
	*ret = value;
	return true;
}
