/* SPDX-License-Identifier: MIT */
/*
 * A block device as a split driver: what its two halves say to each other. back.c has the disk, front.c uses it.
 * Commands are inline; sectors travel in buffers: lent OUT for a write (the back half reads them), lent IN for a read
 * (the back half fills them). Numbers are little endian, since the halves may run on different machines.
 */
#ifndef BLOCK_H
#define BLOCK_H

#include <stdint.h>

#define SECTOR 512u

enum { BLOCK_SIZE = 1, BLOCK_READ = 2, BLOCK_WRITE = 3 };

struct block_command {
	uint32_t op;
	uint32_t zero;
	uint64_t sector; /* first one; how many, the buffer says */
};

/* Reply to BLOCK_SIZE. Status of every reply: 0 or a negative errno. */
struct block_size {
	uint64_t sectors;
};

#endif
