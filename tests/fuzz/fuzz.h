/* SPDX-License-Identifier: MIT */
/* What the targets of libFuzzer share. */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The target: 0 always. What is wrong ends the process. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An input is taken from its front; what is beyond its end reads as zero. */
struct input {
	const uint8_t *at, *end;
};
struct input input(const uint8_t *data, size_t size);
bool input_over(const struct input *in);
uint8_t input_8(struct input *in);
uint16_t input_16(struct input *in);
uint32_t input_32(struct input *in);
/* At most `most` bytes, in a heap block of exactly that size, so that a step beyond its end is noticed. The caller
 * frees it; never NULL. */
uint8_t *input_bytes(struct input *in, size_t most, size_t *ret_size);

#endif
