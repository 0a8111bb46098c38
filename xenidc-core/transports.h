/* SPDX-License-Identifier: MIT */
/* The table of transports. */
#ifndef XI_CORE_TRANSPORTS_H
#define XI_CORE_TRANSPORTS_H

#include <xenidc/transport.h>

/* The i-th transport, NULL behind the last. */
const struct xi_transport *xi_transport_at(unsigned i);

#ifdef XI_TESTING
/* Testing builds: one more transport, before anything else is called. */
void xi_transport_add(const struct xi_transport *transport);
#endif

#endif
