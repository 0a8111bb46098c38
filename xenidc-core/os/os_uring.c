/* SPDX-License-Identifier: MIT */
/*
 * Many calls with one entry into the kernel, by io_uring.
 *
 * Each call carries MSG_DONTWAIT, so that it is over when its submission is: nothing is ever left under way, and
 * nothing has to be cancelled.
 */
#include "os_uring.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>

#include "xenidc-core/base/assert.h"

/* Of 5.17. Older kernels may let a call wait in spite of MSG_DONTWAIT. */
#define FEATURES_NEEDED IORING_FEAT_CQE_SKIP
/* A kernel that takes no entry so often in a row (EAGAIN, EINTR) is not asked again. */
#define TRIES_MAX 1000

struct xi_batch {
	struct io_uring ring;
	unsigned most;
	bool broken; /* the ring said something impossible: not used again */
};

int xi_uring_new(unsigned most, struct xi_batch **ret)
{
	struct io_uring_params params = { .flags = IORING_SETUP_CLAMP };
	struct xi_batch *batch = calloc(1, sizeof(*batch));
	XI_ASSERT(most > 0);
	if (!batch)
		return -ENOMEM;
	int r = io_uring_queue_init_params(most, &batch->ring, &params);
	if (r == 0 && !(params.features & FEATURES_NEEDED)) {
		io_uring_queue_exit(&batch->ring);
		r = -ENOSYS;
	}
	if (r < 0) {
		free(batch);
		return r;
	}
	batch->most = most;
	*ret = batch;
	return 0;
}

void xi_uring_free(struct xi_batch *batch)
{
	io_uring_queue_exit(&batch->ring);
	free(batch);
}

static void prepare(struct xi_batch *batch, struct xi_batch_call *call, unsigned i)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&batch->ring);
	XI_ASSERT(sqe); /* all entries were submitted by the run before */
	if (call->send)
		io_uring_prep_sendmsg(sqe, call->fd, &call->message, MSG_DONTWAIT | MSG_NOSIGNAL);
	else
		io_uring_prep_recvmsg(sqe, call->fd, &call->message, MSG_DONTWAIT);
	sqe->user_data = i;
}

/* Entries that the kernel did not take would be submitted with the next run, whose memory is another. */
static bool submit(struct xi_batch *batch, unsigned n)
{
	unsigned submitted = 0;
	for (int tries = 0; submitted < n && tries < TRIES_MAX; tries++) {
		int r = io_uring_submit_and_wait(&batch->ring, n);
		if (r < 0 && r != -EINTR && r != -EAGAIN)
			return false;
		submitted += r > 0 ? (unsigned)r : 0;
	}
	return submitted == n;
}

static unsigned reap(struct xi_batch *batch, struct xi_batch_call *calls, unsigned n)
{
	struct io_uring_cqe *cqe;
	unsigned head, seen = 0;
	io_uring_for_each_cqe(&batch->ring, head, cqe)
	{
		XI_ASSERT(cqe->user_data < n);
		calls[cqe->user_data].result = cqe->res;
		seen++;
	}
	io_uring_cq_advance(&batch->ring, seen);
	return seen;
}

void xi_uring_run(struct xi_batch *batch, struct xi_batch_call *calls, unsigned n)
{
	XI_ASSERT(n > 0 && n <= batch->most);
	for (unsigned i = 0; i < n; i++)
		calls[i].result = XI_BATCH_NOT_RUN;
	if (batch->broken)
		return;
	for (unsigned i = 0; i < n; i++)
		prepare(batch, &calls[i], i);
	batch->broken = !submit(batch, n);
	batch->broken = reap(batch, calls, n) != n || batch->broken;
}
