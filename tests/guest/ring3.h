/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef RING3_H
#define RING3_H

/* What ring3.c and its guest agree on. */

#define RING3_DISKS 2
#define RING3_MMIO 0xd0000000u /* of the first; the next is a page further */
#define RING3_CODE 0x200000u
#define RING3_STACK 0xf00000u
#define RING3_RAM 0x1000000u
#define RING3_GSI 5 /* of the first disk */
#define RING3_VECTOR 0x30 /* of the first disk */
#define RING3_SECTORS 2048u
#define RING3_BUDGET_MS 100u /* as ring3 is told */

/* Ports. */
#define RING3_CHAR 0xe9 /* out: the name of a case, or what is wrong */
#define RING3_VERDICT 0xf0 /* out: 1 ok, 0 failed, 2 no more */
/*
 * out: 'b'lock, 'r'elease, 'd'estroy the first; 'e' and 'E', RING3_TRIPS
 * requests to the second begin and have ended, 'x' and 'X', so without ioeventfd
 */
#define RING3_COMMAND 0xf1
#define RING3_TRIPS 2000u
#define RING3_WEDGED 0xf2 /* in: 1 while the first has left a worker behind */
#define RING3_RELEASED 0xf3 /* in: 1 once the first's storage is not used */
#define RING3_CLOCK 0xf4 /* in, 4 bytes: milliseconds */

#endif
