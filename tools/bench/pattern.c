/* SPDX-License-Identifier: MIT */
#include "tools/bench/pattern.h"

#include <string.h>
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

#define PAGE 4096u

/* The benchmark checks every byte at the speed of memory, or it would measure its own checking. */
#if defined(__x86_64__)
#define FAST __attribute__((target_clones("avx2", "default")))
#else
#define FAST
#endif
typedef uint64_t words __attribute__((vector_size(32), may_alias, aligned(1)));

static uint64_t first_word(uint64_t number)
{
	return (number + 1) * 0x9e3779b97f4a7c15ull; /* any odd constant that mixes high bits */
}

/* Word i is first + i. */
FAST static void fill_words(words *to, size_t n, uint64_t first)
{
	words a = { first, first + 1, first + 2, first + 3 };
	const words step = { 4, 4, 4, 4 };

	for (size_t i = 0; i < n; i++, a += step)
		to[i] = a;
}

static bool stream;

void xi_pattern_stream(bool on)
{
	stream = on;
}

#if defined(__x86_64__)
/* The same, by stores that need not own the line first. `to` is aligned to 32 bytes. */
static void stream_words(void *to, size_t n, uint64_t first)
{
	__m128i *line = to;
	__m128i a = _mm_set_epi64x((long long)first + 1, (long long)first);
	const __m128i step = _mm_set1_epi64x(2);

	for (size_t i = 0; i < 2 * n; i++, a = _mm_add_epi64(a, step))
		_mm_stream_si128(line + i, a);
	_mm_sfence();
}
#else
static void stream_words(void *to, size_t n, uint64_t first)
{
	fill_words(to, n, first);
}
#endif

FAST static uint64_t differing_words(const words *from, size_t n, uint64_t first)
{
	words a = { first, first + 1, first + 2, first + 3 }, b = a + 4;
	words bad_a = { 0 }, bad_b = { 0 };
	const words step = { 8, 8, 8, 8 };
	size_t i;

	for (i = 0; i + 2 <= n; i += 2, a += step, b += step) {
		bad_a |= from[i] ^ a;
		bad_b |= from[i + 1] ^ b;
	}
	if (i < n)
		bad_a |= from[i] ^ a;
	bad_a |= bad_b;
	return bad_a[0] | bad_a[1] | bad_a[2] | bad_a[3];
}

/* The last bytes, fewer than a vector. */
static void tail(uint8_t *to, size_t size, uint64_t first)
{
	for (size_t i = 0; i < size; i++)
		to[i] = (uint8_t)((first + i / 8) >> (i % 8 * 8));
}

void xi_pattern_fill(void *to, size_t size, uint64_t number, enum xi_verify how)
{
	uint64_t first = first_word(number);
	size_t n = size / sizeof(words);

	if (how == XI_VERIFY_FULL) {
		if (stream && (uintptr_t)to % sizeof(words) == 0)
			stream_words(to, n, first);
		else
			fill_words(to, n, first);
		tail((uint8_t *)to + n * sizeof(words), size % sizeof(words), first + n * 4);
	} else if (how == XI_VERIFY_STAMP) {
		for (size_t at = 0; at + sizeof(first) <= size; at += PAGE, first++)
			memcpy((uint8_t *)to + at, &first, sizeof(first));
	}
}

bool xi_pattern_check(const void *from, size_t size, uint64_t number, enum xi_verify how)
{
	uint64_t first = first_word(number), bad = 0, word;
	size_t n = size / sizeof(words);
	uint8_t expected[sizeof(words)];

	if (how == XI_VERIFY_FULL) {
		tail(expected, size % sizeof(words), first + n * 4);
		if (memcmp((const uint8_t *)from + n * sizeof(words), expected, size % sizeof(words)))
			return false;
		return !differing_words(from, n, first);
	}
	if (how == XI_VERIFY_STAMP) {
		for (size_t at = 0; at + sizeof(first) <= size; at += PAGE, first++) {
			memcpy(&word, (const uint8_t *)from + at, sizeof(word));
			bad |= word ^ first;
		}
	}
	return !bad;
}
