/* SPDX-License-Identifier: MIT */
#include "address.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "transports.h"

/* "shm:, tcp:", for messages. */
static void list_schemes(char *to, size_t size)
{
	const struct xi_transport *t;
	size_t used = 0;

	XI_ASSERT(to && size > 1);
	XI_ASSERT(size > 0);
	to[0] = '\0';
	for (unsigned i = 0; (t = xi_transport_at(i)) && used < size; i++)
		used += (size_t)snprintf(to + used, size - used, "%s%s:", i ? ", " : "", t->scheme);
}

int xi_address_parse(const char *address, const struct xi_transport **ret_transport, const char **ret_rest,
		     char *service, struct xenidc_error *err)
{
	const char *colon = strchr(address, ':');
	const struct xi_transport *t;
	char schemes[80];

	XI_ASSERT(address && ret_rest);
	XI_ASSERT(service && ret_transport);
	list_schemes(schemes, sizeof(schemes));
	if (strnlen(address, XENIDC_ADDRESS_MAX) == XENIDC_ADDRESS_MAX)
		return xi_error(err, -ENAMETOOLONG, XENIDC_REASON_ADDRESS,
				"the address \"%.40s...\" is longer than %d characters; shorten it", address,
				XENIDC_ADDRESS_MAX - 1);
	if (!colon)
		return xi_error(
			err, -EINVAL, XENIDC_REASON_ADDRESS,
			"the address \"%.80s\" does not say which transport to use; put one of %s in front of it",
			address, schemes);
	t = xi_transport_find(address, (size_t)(colon - address));
	if (!t)
		return xi_error(err, -EPROTONOSUPPORT, XENIDC_REASON_ADDRESS,
				"the address \"%.80s\" asks for a transport that does not exist here; there are %s",
				address, schemes);
	*ret_transport = t;
	*ret_rest = colon + 1;
	return t->check(colon + 1, service, err);
}

int xenidc_address_check(const char *address, struct xenidc_error *err)
{
	char service[XENIDC_SERVICE_MAX + 1];
	const struct xi_transport *t;
	const char *rest;

	XI_ASSERT(address);
	return xi_address_parse(address, &t, &rest, service, err);
}
