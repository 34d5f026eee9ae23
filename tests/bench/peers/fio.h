/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PEERS_FIO_H
#define PEERS_FIO_H

/* What fio's io_uring makes of the same requests, without a guest. */

#include "../driver.h"

/* Reads at random, on this CPU. False: there is no fio, or it has none. */
bool fio_run(const struct bench_case *what, int file_fd, uint32_t cpu,
	     uint64_t for_ns, struct run *run);

#endif
