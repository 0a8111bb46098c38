/* SPDX-License-Identifier: MIT */
/* A channel for a tool: connect and wait, use, close and wait. */
#ifndef XI_TOOLS_LINK_H
#define XI_TOOLS_LINK_H

#include <xenidc/xenidc.h>

struct xi_link {
	xenidc_loop *loop;
	xenidc_channel *channel; /* its user pointer is the link */
	bool connected, idle;
	bool lost;               /* it was connected, and `why` it is not any more */
	struct xenidc_error why; /* of the end, or of the connect that failed */
	uint64_t connect_ns;     /* from the call to `connected` */
	void *user;
};

/*
 * Make a loop and a channel, connect, and wait for the outcome. `options` may be NULL; `connected`, `disconnecting` and
 * `idle` of its handlers are the link's. On failure `link->why` says why, and nothing is left. 0 or a negative errno.
 */
int xi_link_open(struct xi_link *link, const char *address, const struct xenidc_channel_options *options,
		 enum xenidc_wait wait);
/* A further channel on a loop that exists. */
int xi_link_open_on(struct xi_link *link, xenidc_loop *loop, const char *address,
		    const struct xenidc_channel_options *options);
/* Deliver what was sent, within a second; close, and free the channel; the loop too if xi_link_open() made it. */
void xi_link_close(struct xi_link *link);

/* "shm:x: could not ...", or as JSON {"address":, "error": {...}}; returns the exit code. */
int xi_link_report(const struct xi_link *link, const char *program, const char *address, bool json);

#endif
