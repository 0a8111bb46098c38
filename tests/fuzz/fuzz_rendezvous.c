/* SPDX-License-Identifier: MIT */
/* The rendezvous of shm, over real sockets: packets of any content, in any order, with any descriptors. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "tests/hostile/link.h"
#include "tests/hostile/shm_side.h"
#include "tests/lib/check.h"

#define STEPS_MAX 12
#define TURNS_MAX 200000

static struct target target;
static struct link l;
static struct input *in;
static struct raw_bytes packet;

/* A descriptor of one kind or the other; the caller closes it. */
static int some_fd(uint8_t kind)
{
	int ends[2];

	switch (kind % 8) {
	case 0:
		CHECK_EQ(pipe(ends), 0);
		close(ends[1]);
		return ends[0];
	case 1:
		return open("/dev/null", O_RDWR | O_CLOEXEC);
	case 2: /* not sealed */
		return shm_new_memfd(l.shm->tx.bytes, 0);
	case 3: /* its size is not what was agreed on */
		return shm_new_memfd(l.shm->tx.bytes - 4096, SHM_SEALS);
	case 4:
		return shm_new_memfd(l.shm->tx.bytes + 4096, SHM_SEALS);
	case 5: /* sealed by halves */
		return shm_new_memfd(l.shm->tx.bytes, kind & SHM_SEALS & ~1u);
	case 6: /* no region */
		return shm_new_memfd(l.shm->tx.bytes, SHM_SEALS);
	default:
		shm_make_region(&l);
		return dup(l.shm->memfd);
	}
}

static void send_with_fds(uint8_t how)
{
	unsigned n = how & 0x80 ? 2 + (how >> 5 & 3) : how & 0x40 ? 0 : 1;
	int fds[SHM_FDS_MAX];

	for (unsigned i = 0; i < n; i++)
		fds[i] = some_fd((uint8_t)(how + i));
	shm_send_packet(&l, packet.b, packet.n, fds, n);
	for (unsigned i = 0; i < n; i++)
		close(fds[i]);
}

/* A good message, changed here and there, with the right checksum. */
static void change(void)
{
	uint8_t edits = input_8(in) % 4;

	for (int i = 0; i < edits; i++)
		packet.b[input_16(in) % packet.n] = input_8(in);
	memcpy(packet.b, "XIDC", 4);
	raw_seal(&packet);
}

static void say(uint8_t what)
{
	uint8_t region[512], *bytes;
	size_t n;

	switch (what % 8) {
	case 0:
		bytes = input_bytes(in, input_16(in) % 3000, &n);
		packet.n = 0;
		raw_copy(&packet, bytes, (uint32_t)n);
		free(bytes);
		send_with_fds(input_8(in));
		break;
	case 1:
	case 2:
		raw_connect(&packet, &raw_usual);
		change();
		send_with_fds(0x40);
		break;
	case 3:
	case 4:
		raw_ready(&packet, region, shm_export(&l, region));
		change();
		send_with_fds(input_8(in));
		break;
	case 5:
		packet.n = 1;
		send_with_fds(what & 8 ? input_8(in) : 0x40);
		break;
	case 6:
		shutdown(l.fd, what & 8 ? SHUT_WR : SHUT_RDWR);
		break;
	default:
		for (int i = 0; i < what / 8 % 4 + 1; i++)
			target_turn(&target);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input program = input(data, size);

	if (!target.loop)
		target_start(&target, "shm");
	in = &program;
	link_open(&l, LINK_SHM, &target, false);
	for (int i = 0; i < STEPS_MAX && !input_over(in); i++)
		say(input_8(in));
	target_turn(&target);
	link_close(&l);
	/* Without a word of ours in the region it waits for news of a death for a while; it is told to stop. */
	for (int i = 0; xi_alive(XI_OBJECT_CONN) != target.objects[XI_OBJECT_CONN]; i++) {
		CHECK(i < TURNS_MAX);
		target_turn(&target);
		if (target.channel && !target.idle)
			(void)xenidc_channel_close(target.channel, 0);
	}
	if (target.channel)
		target_over(&target);
	target_clean(&target);
	return 0;
}
