/* SPDX-License-Identifier: MIT */
/* Addresses: scheme, a colon, and what the transport makes of the rest. */
#ifndef XI_CORE_ADDRESS_H
#define XI_CORE_ADDRESS_H

#include <xenidc/transport.h>

/*
 * Find the transport of `address` and let it check the rest. `*ret_rest` leads into `address`; `service` has
 * XENIDC_SERVICE_MAX + 1 bytes. 0, -EINVAL, -ENAMETOOLONG, -EPROTONOSUPPORT, with `err`.
 */
int xi_address_parse(const char *address, const struct xi_transport **ret_transport, const char **ret_rest,
		     char *service, struct xenidc_error *err);

#endif
