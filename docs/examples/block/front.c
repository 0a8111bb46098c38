/* SPDX-License-Identifier: MIT */
/*
 * The front half: writes sectors of the disk at an address, reads them back, compares.
 *
 *     block-front ADDRESS
 *
 * It uses xenidc_call(), which waits for each reply; a driver would submit and go on, as echo.c does.
 */
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <xenidc/xenidc.h>

#include "block.h"

#define CHUNK 65536u /* bytes a request: the larger one of the default buffers */

/* One command. `buffer` NULL: none is lent. Returns the status of the reply. */
static int command(xenidc_channel *channel, uint32_t op, uint64_t sector, const struct xenidc_buffer *buffer,
		   void *answer, uint32_t answer_size)
{
	struct block_command c = { .op = htole32(op), .sector = htole64(sector) };
	struct xenidc_request request = { .payload = &c, .payload_len = sizeof(c), .timeout_ns = 5000000000 };
	struct xenidc_ref ref = { .length = CHUNK };
	struct xenidc_result result;
	uint32_t valid = 0;
	int e;

	if (buffer) {
		ref.buffer = *buffer;
		request.refs = &ref;
		request.ref_count = 1;
	}
	e = xenidc_call(channel, &request, answer, answer_size, &valid, &result);
	if (e)
		return e;
	if (result.end != XENIDC_REPLIED)
		return -ECONNABORTED;
	if (op == BLOCK_READ && !result.status && valid != CHUNK)
		return -EIO;
	return result.status;
}

/* Write the whole disk in chunks, each different, then read and compare. */
static int exercise(xenidc_channel *channel, uint64_t sectors)
{
	struct xenidc_buffer out, in;
	int e = xenidc_buffer_get(channel, XENIDC_OUT, CHUNK, &out);

	if (!e)
		e = xenidc_buffer_get(channel, XENIDC_IN, CHUNK, &in);
	for (uint64_t s = 0; !e && s < sectors; s += CHUNK / SECTOR) {
		memset(out.data, (int)(s / (CHUNK / SECTOR) * 37 + 1), CHUNK); /* the buffer is ours... */
		e = command(channel, BLOCK_WRITE, s, &out, NULL, 0);           /* lent... and ours again */
	}
	for (uint64_t s = 0; !e && s < sectors; s += CHUNK / SECTOR) {
		memset(out.data, (int)(s / (CHUNK / SECTOR) * 37 + 1), CHUNK);
		e = command(channel, BLOCK_READ, s, &in, NULL, 0);
		if (!e && memcmp(in.data, out.data, CHUNK) != 0) {
			(void)fprintf(stderr, "block-front: sector %llu came back different\n", (unsigned long long)s);
			e = -EIO;
		}
	}
	/* Beyond the end: the back half has to refuse. */
	if (!e && command(channel, BLOCK_WRITE, sectors, &out, NULL, 0) != -ERANGE) {
		(void)fprintf(stderr, "block-front: a write beyond the end was not refused\n");
		e = -EIO;
	}
	return e;
}

static void on_idle(xenidc_channel *channel, const struct xenidc_error *why)
{
	(void)channel;
	(void)fprintf(stderr, "block-front: %s\n", why->text);
}

int main(int argc, char **argv)
{
	struct xenidc_channel_options options = { .size = sizeof(options), .handlers = { .idle = on_idle } };
	struct xenidc_error err = { .text = "out of memory" };
	struct block_size size = { 0 };
	xenidc_channel *channel = NULL;
	xenidc_loop *loop;
	int e;

	if (argc != 2 || xenidc_loop_new(NULL, &loop)) {
		(void)fprintf(stderr, argc == 2 ? "block-front: out of memory\n" : "usage: block-front ADDRESS\n");
		return 2;
	}
	if (xenidc_channel_new(loop, &options, &channel, &err) || xenidc_channel_connect(channel, argv[1], &err)) {
		(void)fprintf(stderr, "block-front: %s\n", err.text);
		return 1;
	}
	while (xenidc_channel_state(channel) == XENIDC_CONNECTING)
		(void)xenidc_loop_step(loop, -1);
	e = command(channel, BLOCK_SIZE, 0, NULL, &size, sizeof(size));
	if (!e)
		e = exercise(channel, le64toh(size.sectors));
	if (e)
		(void)fprintf(stderr, "block-front: the disk at %s failed: %s\n", argv[1], strerror(-e));
	else
		(void)printf("%llu sectors written, read back and compared\n",
			     (unsigned long long)le64toh(size.sectors));
	xenidc_loop_free(loop); /* closes and frees the channel, too */
	return e ? 1 : 0;
}
