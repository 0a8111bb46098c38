/* SPDX-License-Identifier: MIT */
/* Addresses, of every scheme that there is. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <xenidc/xenidc.h>

#include "fuzz.h"
#include "tests/lib/check.h"
#include "xenidc-core/address.h"

#define LONG 400

static void check_error(const struct xenidc_error *err, int code)
{
	size_t length = strnlen(err->text, sizeof(err->text));

	CHECK(length > 0 && length < sizeof(err->text));
	CHECK_EQ(err->code, code);
	CHECK(err->reason != XENIDC_REASON_NONE && !err->by_peer);
	for (size_t i = 0; i < length; i++)
		CHECK(err->text[i] >= ' ' && err->text[i] <= '~');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const schemes[] = { "", "shm:", "tcp:", "tcp:[" };
	struct input in = input(data, size);
	const char *scheme = schemes[input_8(&in) % 4], *rest = NULL;
	size_t before = strlen(scheme), length;
	uint8_t *bytes = input_bytes(&in, LONG, &length);
	char *address = malloc(before + length + 1);
	char service[XENIDC_SERVICE_MAX + 1];
	const struct xi_transport *transport = NULL;
	struct xenidc_error err = { 0 };
	int r;

	CHECK(address);
	memcpy(address, scheme, before);
	memcpy(address + before, bytes, length);
	address[before + length] = '\0';
	r = xenidc_address_check(address, &err);
	CHECK(r == 0 || r == -EINVAL || r == -ENAMETOOLONG || r == -EPROTONOSUPPORT);
	if (r)
		check_error(&err, r);
	CHECK_EQ(xenidc_address_check(address, NULL), r);
	CHECK_EQ(xi_address_parse(address, &transport, &rest, service, &err), r);
	if (!r) {
		CHECK(transport && rest > address && rest <= address + strlen(address));
		CHECK(strnlen(service, sizeof(service)) < sizeof(service));
	}
	free(address);
	free(bytes);
	return 0;
}
