/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef VMM_SAY_H
#define VMM_SAY_H

/* Print "ktvblk-vmm: ...", with errno's text for fail(), and exit. */
_Noreturn void fail(const char *what);
_Noreturn void give_up(const char *format, ...)
	__attribute__((format(printf, 1, 2)));

#endif
