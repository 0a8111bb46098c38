/* SPDX-License-Identifier: MIT */
/* The part of the OS table that stands in os_uring.c. */
#ifndef XI_OS_URING_H
#define XI_OS_URING_H

#include "xenidc-core/base/os.h"

int xi_uring_new(unsigned most, struct xi_batch **ret);
void xi_uring_free(struct xi_batch *batch);
void xi_uring_run(struct xi_batch *batch, struct xi_batch_call *calls, unsigned n);

#endif
