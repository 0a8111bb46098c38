/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "tests/lib/check.h"

struct input input(const uint8_t *data, size_t size)
{
	return (struct input){ data, size ? data + size : data };
}

bool input_over(const struct input *in)
{
	return in->at == in->end;
}

uint8_t input_8(struct input *in)
{
	return input_over(in) ? 0 : *in->at++;
}

uint16_t input_16(struct input *in)
{
	uint16_t low = input_8(in);

	return (uint16_t)(low | input_8(in) << 8);
}

uint32_t input_32(struct input *in)
{
	uint32_t low = input_16(in);

	return low | (uint32_t)input_16(in) << 16;
}

uint8_t *input_bytes(struct input *in, size_t most, size_t *ret_size)
{
	size_t left = (size_t)(in->end - in->at), n = left < most ? left : most;
	uint8_t *bytes = malloc(n ? n : 1);

	CHECK(bytes);
	if (n)
		memcpy(bytes, in->at, n);
	in->at += n;
	*ret_size = n;
	return bytes;
}
