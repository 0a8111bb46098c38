/* SPDX-License-Identifier: MIT */
/*
 * CRC32C. Two ways, chosen at the first call: the processor's instruction, or eight tables (eight bytes a step).
 *
 * The instruction gives its result after three cycles but can be started in each, so long input is taken as three lanes
 * side by side. The lanes are joined by what the state of one becomes after a lane of zeros, which is linear in the
 * state, and so four more tables.
 */
#include "crc32c.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "assert.h"

#define POLYNOMIAL 0x82f63b78u /* reflected */

#define LANE 1024 /* bytes */

typedef uint32_t crc_fn(uint32_t state, const uint8_t *p, size_t length);

static uint32_t table[8][256];
static crc_fn *_Atomic chosen;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void build_tables(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t v = i;
		for (int bit = 0; bit < 8; bit++)
			v = (v >> 1) ^ (v & 1 ? POLYNOMIAL : 0);
		table[0][i] = v;
	}
	for (uint32_t i = 0; i < 256; i++)
		for (int k = 1; k < 8; k++)
			table[k][i] = (table[k - 1][i] >> 8) ^ table[0][table[k - 1][i] & 255];
	XI_ASSERT(table[0][128] == POLYNOMIAL);
}

static uint32_t by_table(uint32_t state, const uint8_t *p, size_t length)
{
	for (; length >= 8; p += 8, length -= 8) {
		uint32_t low, high;
		memcpy(&low, p, 4);
		memcpy(&high, p + 4, 4);
		low ^= state;
		state = table[7][low & 255] ^ table[6][low >> 8 & 255] ^ table[5][low >> 16 & 255] ^
			table[4][low >> 24] ^ table[3][high & 255] ^ table[2][high >> 8 & 255] ^
			table[1][high >> 16 & 255] ^ table[0][high >> 24];
	}
	for (; length; p++, length--)
		state = (state >> 8) ^ table[0][(state ^ *p) & 255];
	return state;
}

#ifdef __x86_64__
static uint32_t lane_of_zeros[4][256];

static void build_lane(void)
{
	static const uint8_t zeros[LANE];
	for (unsigned byte = 0; byte < 4; byte++) {
		for (unsigned bit = 0; bit < 8; bit++)
			lane_of_zeros[byte][1u << bit] = by_table(1u << (8 * byte + bit), zeros, LANE);
		for (unsigned i = 1; i < 256; i++)
			lane_of_zeros[byte][i] = lane_of_zeros[byte][i & (i - 1)] ^ lane_of_zeros[byte][i & -i];
	}
}

static uint32_t after_zeros(uint64_t state)
{
	return lane_of_zeros[0][state & 255] ^ lane_of_zeros[1][state >> 8 & 255] ^
	       lane_of_zeros[2][state >> 16 & 255] ^ lane_of_zeros[3][state >> 24 & 255];
}

static inline uint64_t load(const uint8_t *p)
{
	uint64_t v;
	memcpy(&v, p, 8);
	return v;
}

__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t state, const uint8_t *p, size_t length)
{
	uint64_t a = state;
	for (; length >= 3 * LANE; p += 3 * LANE, length -= 3 * LANE) {
		uint64_t b = 0, c = 0;
		for (size_t i = 0; i < LANE; i += 8) {
			a = __builtin_ia32_crc32di(a, load(p + i));
			b = __builtin_ia32_crc32di(b, load(p + i + LANE));
			c = __builtin_ia32_crc32di(c, load(p + i + 2 * LANE));
		}
		a = after_zeros(after_zeros(a) ^ b) ^ c;
	}
	for (; length >= 8; p += 8, length -= 8)
		a = __builtin_ia32_crc32di(a, load(p));
	state = (uint32_t)a;
	for (; length; p++, length--)
		state = __builtin_ia32_crc32qi(state, *p);
	return state;
}
#endif

static void choose(void)
{
	crc_fn *fn = by_table;
	build_tables();
#ifdef __x86_64__
	__builtin_cpu_init();
	if (__builtin_cpu_supports("sse4.2")) {
		build_lane();
		fn = by_instruction;
	}
#endif
	atomic_store_explicit(&chosen, fn, memory_order_release);
}

static crc_fn *get_chosen(void)
{
	crc_fn *fn = atomic_load_explicit(&chosen, memory_order_acquire);
	if (fn)
		return fn;
	pthread_once(&once, choose);
	return atomic_load_explicit(&chosen, memory_order_acquire);
}

uint32_t xi_crc32c(uint32_t crc, const void *bytes, size_t length)
{
	return ~get_chosen()(~crc, bytes, length);
}

#ifdef XI_TESTING
uint32_t xi_crc32c_by_table(uint32_t crc, const void *bytes, size_t length)
{
	get_chosen();
	return ~by_table(~crc, bytes, length);
}
#endif
