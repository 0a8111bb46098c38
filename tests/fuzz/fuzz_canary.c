/* SPDX-License-Identifier: MIT */
/*
 * A parser with a bug on purpose: a length is believed. The fuzzer has to find it within the time that the others have;
 * if it does not, the others prove nothing either.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = input(data, size);
	size_t length;
	uint8_t *bytes = input_bytes(&in, 256, &length);
	unsigned sum = 0;

	if (length > 6 && !memcmp(bytes, "XI", 2) && bytes[2] == 3 && bytes[3] < 8)
		for (unsigned i = 0; i < bytes[4]; i++)
			sum += bytes[5 + i];
	free(bytes);
	return sum > 255 * 256; /* never */
}
