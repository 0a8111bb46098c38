/* SPDX-License-Identifier: MIT */
/*
 * Writes JSON, one value after the other, to a stream. Commas, quotes and escapes are its affair:
 *
 *     xi_json_open(&j, NULL);                  {
 *     xi_json_text(&j, "address", address);        "address": "tcp:...",
 *     xi_json_open(&j, "limits"); ...              "limits": { ... }
 *     xi_json_close(&j);
 *     xi_json_close(&j);                       }
 */
#ifndef XI_TOOLS_JSON_H
#define XI_TOOLS_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct xi_json {
	FILE *to;
	bool comma;       /* something stands before the next value */
	unsigned depth;   /* open objects and lists */
	uint64_t is_list; /* bit `depth` of each: a list */
};

/* Keys are NULL inside a list and for the outermost value. */
void xi_json_open(struct xi_json *j, const char *key);
void xi_json_open_list(struct xi_json *j, const char *key);
/* Close what was opened last; the outermost close ends the line. */
void xi_json_close(struct xi_json *j);
/* Any bytes: what is not printable ASCII becomes \u00NN. NULL becomes null. */
void xi_json_text(struct xi_json *j, const char *key, const char *text);
void xi_json_uint(struct xi_json *j, const char *key, uint64_t value);
void xi_json_int(struct xi_json *j, const char *key, int64_t value);
/* A number that is not finite becomes null. */
void xi_json_real(struct xi_json *j, const char *key, double value);
void xi_json_bool(struct xi_json *j, const char *key, bool value);

#endif
