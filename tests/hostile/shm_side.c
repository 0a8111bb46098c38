/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "shm_side.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/lib/check.h"

#define LIMIT_NS 3000000000u
#define EVENT_WORD 64
#define MODE_DOORBELL 2u
#define MODE_CLOSED ((uint64_t)3)

static uint64_t limit(void)
{
	return check_now() + (uint64_t)LIMIT_NS * check_factor();
}

/* --- Meeting */

static struct sockaddr_un place(const char *name)
{
	const char *parent = geteuid() == 0 ? "/run" : getenv("XDG_RUNTIME_DIR");
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int n;

	CHECK(parent);
	n = snprintf(at.sun_path, sizeof(at.sun_path), "%s/xenidc/%s", parent, name);
	CHECK(n > 0 && n < (int)sizeof(at.sun_path));
	return at;
}

static int new_socket(void)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	CHECK(fd >= 0);
	return fd;
}

static void meet_as_dialler(struct link *l)
{
	struct sockaddr_un at = place(strchr(l->target->address, ':') + 1);
	uint64_t end = limit();

	l->fd = new_socket();
	while (connect(l->fd, (struct sockaddr *)&at, sizeof(at))) {
		if (errno != EAGAIN || check_now() > end)
			check_failed(__FILE__, __LINE__, "connect to %s: %s", at.sun_path, strerror(errno));
		target_turn(l->target);
	}
}

static void meet_as_listener(struct link *l)
{
	uint64_t end = limit();
	struct sockaddr_un at;
	char name[64], address[80];

	snprintf(name, sizeof(name), "hostile-%d-raw", (int)getpid());
	snprintf(address, sizeof(address), "shm:%s", name);
	at = place(name);
	unlink(at.sun_path);
	l->listen_fd = new_socket();
	CHECK_EQ(bind(l->listen_fd, (struct sockaddr *)&at, sizeof(at)), 0);
	CHECK_EQ(listen(l->listen_fd, 1), 0);
	target_dial(l->target, address);
	while ((l->fd = accept4(l->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) < 0) {
		CHECK(check_now() < end);
		target_turn(l->target);
	}
	unlink(at.sun_path);
}

void shm_open_link(struct link *l)
{
	l->shm = calloc(1, sizeof(*l->shm));
	CHECK(l->shm);
	l->shm->memfd = -1;
	l->shm->tx = l->shm->rx = raw_layout(&l->limits);
	l->shm->seen = calloc(l->shm->rx.frames, sizeof(*l->shm->seen));
	CHECK(l->shm->seen);
	if (l->accepts)
		meet_as_listener(l);
	else
		meet_as_dialler(l);
}

static void drop_fds(struct shm_side *s)
{
	for (unsigned i = 0; i < s->nfds; i++)
		close(s->fds[i]);
	s->nfds = 0;
}

void shm_close_link(struct link *l)
{
	struct shm_side *s = l->shm;

	drop_fds(s);
	if (s->own) {
		/* "I have ended": otherwise the target waits a while for the news of a death. */
		__atomic_store_n((uint64_t *)(void *)(s->own + EVENT_WORD), MODE_CLOSED << 32, __ATOMIC_RELEASE);
		munmap(s->own, s->tx.bytes);
	}
	if (s->peer)
		munmap((void *)(uintptr_t)s->peer, s->rx.bytes);
	if (s->memfd >= 0)
		close(s->memfd);
	free(s->seen);
	free(s);
	l->shm = NULL;
}

/* --- Packets: connect messages and doorbells */

void shm_send_packet(struct link *l, const void *bytes, uint32_t length, const int *fds, unsigned nfds)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int) * SHM_FDS_MAX)];
	} control = { .space = { 0 } };
	struct iovec iov = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = length };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	uint64_t end = limit();

	CHECK(nfds <= SHM_FDS_MAX);
	if (nfds) {
		m.msg_control = control.space;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
		control.header = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
						   .cmsg_type = SCM_RIGHTS,
						   .cmsg_len = CMSG_LEN(sizeof(int) * nfds) };
		memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * nfds);
	}
	while (sendmsg(l->fd, &m, MSG_NOSIGNAL) < 0) {
		if (errno == EPIPE || errno == ECONNRESET)
			return;
		if (errno != EAGAIN || check_now() > end)
			check_failed(__FILE__, __LINE__, "sendmsg: %s", strerror(errno));
		target_turn(l->target);
	}
}

void shm_send_hello(struct link *l, const struct raw_bytes *hello)
{
	bool with_region = hello->n > 4 && (hello->b[4] == RAW_ACCEPT || hello->b[4] == RAW_READY);

	shm_send_packet(l, hello->b, hello->n, &l->shm->memfd, with_region && l->shm->memfd >= 0 ? 1 : 0);
}

/* One packet; 0: none is there, -1: the other side has hung up. */
static int recv_packet(struct link *l, void *to, uint32_t size)
{
	char control[CMSG_SPACE(sizeof(int) * SHM_FDS_MAX)];
	struct iovec iov = { .iov_base = to, .iov_len = size };
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
	};
	ssize_t n = recvmsg(l->fd, &m, MSG_CMSG_CLOEXEC);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return -1;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		drop_fds(l->shm);
		l->shm->nfds = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		CHECK(l->shm->nfds <= SHM_FDS_MAX);
		memcpy(l->shm->fds, CMSG_DATA(c), l->shm->nfds * sizeof(int));
	}
	return (int)n;
}

bool shm_recv_hello(struct link *l, struct raw_bytes *hello)
{
	uint64_t end = limit();
	int n;

	while ((n = recv_packet(l, hello->b, RAW_BYTES)) == 0) {
		if (check_now() > end)
			check_failed(__FILE__, __LINE__, "the target neither says anything nor hangs up");
		target_turn(l->target);
	}
	if (n < 0) {
		l->eof = true;
		return false;
	}
	CHECK(n >= 32);
	CHECK_MEM(hello->b, "XIDC", 4);
	CHECK_EQ(raw_get32(hello->b + 12), n);
	hello->n = (uint32_t)n;
	return true;
}

/* --- Regions */

int shm_new_memfd(uint32_t bytes, unsigned seals)
{
	int fd = memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, bytes), 0);
	if (bytes)
		CHECK_EQ(pwrite(fd, "XIDR\1\0\0\0", 8, 0), 8);
	if (seals)
		CHECK_EQ(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

void shm_make_region(struct link *l)
{
	struct shm_side *s = l->shm;

	if (s->own)
		return;
	s->memfd = shm_new_memfd(s->tx.bytes, 0);
	s->own = mmap(NULL, s->tx.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->memfd, 0);
	CHECK(s->own != MAP_FAILED);
	CHECK_EQ(fcntl(s->memfd, F_ADD_SEALS, SHM_SEALS), 0);
}

uint32_t shm_export(struct link *l, uint8_t *region)
{
	const uint8_t format[4] = { 1 };

	shm_make_region(l);
	memcpy(region, format, 4);
	memset(region + 4, 0, 8);
	for (int i = 0; i < 4; i++)
		region[4 + i] = (uint8_t)(l->shm->tx.bytes >> 8 * i);
	return 12;
}

void shm_import(struct link *l, const struct raw_bytes *hello)
{
	struct shm_side *s = l->shm;
	const int wanted = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;
	struct stat st;
	const uint8_t *section;
	uint32_t length;

	section = raw_find(hello->b, hello->n, RAW_TRANSPORT, &length);
	CHECK(section && length == 12);
	CHECK_EQ(raw_get32(section), 1);
	CHECK_EQ(raw_get32(section + 4), s->rx.bytes);
	CHECK_EQ(raw_get32(section + 8), 0);
	CHECK_EQ(s->nfds, 1);
	CHECK_EQ(fcntl(s->fds[0], F_GET_SEALS) & wanted, wanted);
	CHECK_EQ(fstat(s->fds[0], &st), 0);
	CHECK_EQ(st.st_size, s->rx.bytes);
	/* The descriptor that it hands out lets nobody write. */
	CHECK(mmap(NULL, s->rx.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->fds[0], 0) == MAP_FAILED);
	s->peer = mmap(NULL, s->rx.bytes, PROT_READ, MAP_SHARED, s->fds[0], 0);
	CHECK(s->peer != MAP_FAILED);
	CHECK_MEM(s->peer, "XIDR\1\0\0\0", 8);
	drop_fds(s);
}

/* --- Rings */

uint8_t *shm_next_slot(struct link *l)
{
	struct shm_side *s = l->shm;

	return s->own + 4096 + (s->put & (s->tx.frames - 1)) * s->tx.stride;
}

uint32_t shm_next_count(struct link *l)
{
	return (uint32_t)(l->shm->put / l->shm->tx.frames) + 1;
}

void shm_publish(struct link *l, uint32_t count)
{
	struct shm_side *s = l->shm;
	uint64_t next = (s->put + 1) & (s->tx.frames - 1), receipt = (uint16_t)s->taken, event;

	__atomic_store_n((uint64_t *)(void *)shm_next_slot(l), count | next << 32 | receipt << 48, __ATOMIC_RELEASE);
	l->shm->put++;
	if (!l->shm->peer)
		return;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	event = __atomic_load_n((const uint64_t *)(const void *)(l->shm->peer + EVENT_WORD), __ATOMIC_ACQUIRE);
	/* The target runs in this very thread, so it never sleeps on a word; but it may have asked for a doorbell. */
	if (event >> 32 == MODE_DOORBELL && (uint32_t)event == (uint32_t)l->shm->put)
		shm_send_packet(l, "", 1, NULL, 0);
}

void shm_send_frame(struct link *l, const struct raw_bytes *frame)
{
	uint32_t room = l->shm->tx.stride - 8;

	/* As much of it as fits: what is too long for the ring can only be announced there. */
	memcpy(shm_next_slot(l) + 8, frame->b, frame->n < room ? frame->n : room);
	shm_publish(l, shm_next_count(l));
}

bool shm_take_frame(struct link *l, struct raw_bytes *frame)
{
	struct shm_side *s = l->shm;
	const uint8_t *slot = s->peer + 4096 + s->taken_slot * s->rx.stride;
	uint64_t word = __atomic_load_n((const uint64_t *)(const void *)slot, __ATOMIC_ACQUIRE);

	if ((uint32_t)word != s->seen[s->taken_slot] + 1)
		return false;
	frame->n = RAW_HEADER + raw_get16(slot + 8 + 2);
	CHECK(frame->n <= s->rx.frame_max);
	memcpy(frame->b, slot + 8, frame->n);
	s->seen[s->taken_slot]++;
	s->taken_slot = (uint16_t)(word >> 32);
	CHECK(s->taken_slot < s->rx.frames);
	s->taken++;
	return true;
}

bool shm_recv_frame(struct link *l, struct raw_bytes *frame)
{
	uint64_t end = limit();
	uint8_t doorbell[64];

	CHECK(l->shm->peer);
	while (!shm_take_frame(l, frame)) {
		if (l->eof)
			return false;
		while (!l->eof) {
			int n = recv_packet(l, doorbell, sizeof(doorbell));
			l->eof = n < 0;
			if (n <= 0)
				break;
			CHECK_EQ(n, 1);
		}
		/* What was published before the end is still there. */
		if (l->eof)
			continue;
		if (check_now() > end)
			check_failed(__FILE__, __LINE__, "the target neither says anything nor hangs up");
		target_turn(l->target);
	}
	return true;
}
