/* SPDX-License-Identifier: MIT */
/*
 * The back half: serves a RAM disk of 8 MiB at an address, to any number of front halves.
 *
 *     block-back ADDRESS
 */
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xenidc/xenidc.h>

#include "block.h"

#define SECTORS 16384u

static uint8_t *disk;

/* Carry out a read or write. Nothing that the other half says is taken on trust: direction, length, range. */
static int transfer(xenidc_channel *channel, xenidc_incoming request, uint32_t op, uint64_t sector)
{
	enum xenidc_direction direction;
	uint32_t length;

	if (xenidc_incoming_refs(channel, request) != 1 ||
	    xenidc_incoming_ref(channel, request, 0, &direction, &length) ||
	    direction != (op == BLOCK_WRITE ? XENIDC_OUT : XENIDC_IN))
		return -EINVAL;
	if (length % SECTOR || sector > SECTORS || length / SECTOR > SECTORS - sector)
		return -ERANGE;
	if (op == BLOCK_WRITE)
		return xenidc_read(channel, request, 0, 0, disk + sector * SECTOR, length);
	return xenidc_write(channel, request, 0, 0, disk + sector * SECTOR, length);
}

static void on_request(xenidc_channel *channel, xenidc_incoming request)
{
	struct block_size size = { .sectors = htole64(SECTORS) };
	struct xenidc_reply reply = { .status = -EINVAL };
	struct block_command command;
	const void *payload;
	uint32_t length;

	if (xenidc_incoming_payload(channel, request, &payload, &length))
		return;
	if (length == sizeof(command)) {
		memcpy(&command, payload, sizeof(command));
		switch (le32toh(command.op)) {
		case BLOCK_SIZE:
			reply.status = 0;
			reply.payload = &size;
			reply.payload_len = sizeof(size);
			break;
		case BLOCK_READ:
		case BLOCK_WRITE:
			reply.status = transfer(channel, request, le32toh(command.op), le64toh(command.sector));
			break;
		default:
			break;
		}
	}
	(void)xenidc_reply(channel, request, &reply); /* ends the loan of the buffer, too */
}

int main(int argc, char **argv)
{
	struct xenidc_listener_options options = {
		.size = sizeof(options),
		.channel = { .size = sizeof(options.channel), .handlers = { .request = on_request } },
	};
	struct xenidc_error err;
	xenidc_listener *listener;
	xenidc_loop *loop;

	disk = calloc(SECTORS, SECTOR);
	if (argc != 2 || !disk || xenidc_loop_new(NULL, &loop)) {
		(void)fprintf(stderr, argc == 2 ? "block-back: out of memory\n" : "usage: block-back ADDRESS\n");
		return 2;
	}
	if (xenidc_listener_new(loop, argv[1], &options, &listener, &err)) {
		(void)fprintf(stderr, "block-back: %s\n", err.text);
		return 1;
	}
	(void)printf("listening on %s\n", xenidc_listener_address(listener));
	(void)fflush(stdout);
	(void)xenidc_loop_run(loop); /* until it is killed; front halves notice at once */
	return 0;
}
