/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KTVBLK_IO_H
#define KTVBLK_IO_H

/* The requests themselves: read, write, flush, get id. */

#include "session.h"

struct io_result {
	/*
	 * The request will not complete: the session is over, or about to be.
	 * The gate may be lost; see session->gate_held.
	 */
	bool abandoned;
	uint8_t status;
	uint32_t used_len;
};

/* Serve session->request, which passed all gates. Counts its outcome. */
struct io_result io_serve(struct session *session);

#endif
