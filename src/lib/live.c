/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a VMM may change while the device runs. */

#include "device.h"
#include "util.h"

int ktvblk_set_throttle(struct ktvblk_dev *dev,
			const struct ktvblk_throttle *throttle)
{
	if (!dev || ktvblk_throttle_check(throttle, NULL) < 0)
		return -EINVAL;
	if (!disk_throttle_change(dev->throttle, throttle,
				  now_ns() + TOKENS_NS))
		return -EAGAIN;
	/* If this fails: the timer of who waits is never set for longer than 1 s. */
	ports_kick_all(dev->ports);
	return 0;
}
