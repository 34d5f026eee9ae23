/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef VMM_ASK_H
#define VMM_ASK_H

/* What others want of the main thread, which is in the guest or waits for it. */

#include <linux/kvm.h>

#include "layout.h"

#define ASK_UNPLUG(slot) (1u << (slot))
#define ASK_QUIT (1u << BUS_SLOTS)
#define ASK_SAVE (2u << BUS_SLOTS)
#define ASK_SIZES (4u << BUS_SLOTS)
#define ASK_LIMITS (8u << BUS_SLOTS)

/* From now on signals ask to end, and SIGUSR2 to save; on the main thread. */
void ask_start(void);

/* Ask the main thread for one of these. From any thread. */
void ask_for(unsigned int what);

/* The CPU that whoever asks takes out of the guest; NULL: none. */
void ask_interrupts(struct kvm_run *run);

/* What has been asked for since the last time. */
unsigned int ask_taken(void);

#endif
