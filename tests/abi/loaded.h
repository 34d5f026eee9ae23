/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef TEST_LOADED_H
#define TEST_LOADED_H

/* libktvblk.so.1 as a program has it that was not linked with it. */

void library_load(void);
/* What was loaded is given back; the functions of ktvblk.h stay callable. */
void library_unload(void);

#endif
