/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The storage is asked for its size while the device runs. It may take as long as
 * it likes for the answer, so it is asked on a thread of its own; who has it,
 * device and thread, may each go first.
 */

#include "device.h"
#include "errand.h"
#include "util.h"

struct asking {
	struct errand errand;
	_Atomic unsigned int refs; /* the device's, and its own while it is out */
	struct ktvblk_backend *backend;
	uint64_t bytes;
	int error;
	pthread_mutex_t lock; /* of these two */
	struct ktvblk_dev *dev; /* NULL: it is gone, or wants no answer */
	bool answered;
};

static struct asking *asking_of(struct errand *errand)
{
	return container_of(errand, struct asking, errand);
}

static void asking_unref(struct asking *asking)
{
	if (!refs_put(&asking->refs))
		return;
	pthread_mutex_destroy(&asking->lock);
	free(asking);
}

/* Once, by who has the answer: tell it, and let the storage go. */
static void answer(void *arg)
{
	struct asking *asking = (struct asking *)arg;
	struct ktvblk_backend *backend = asking->backend;

	pthread_mutex_lock(&asking->lock);
	if (asking->dev && asking->error)
		device_size_unknown(asking->dev, asking->error);
	else if (asking->dev)
		device_resize(asking->dev, asking->bytes, asking->bytes);
	asking->answered = true;
	if (asking->dev)
		ports_state_changed(asking->dev->ports);
	pthread_mutex_unlock(&asking->lock);
	/* Last: it may end the thread. */
	asking->backend = NULL;
	ktvblk_backend_unref(backend);
}

static void ask(struct errand *errand)
{
	struct asking *asking = asking_of(errand);
	const struct ktvblk_backend *backend = asking->backend;

	/* If it ends the thread, too. */
	asking->error = ECANCELED;
	pthread_cleanup_push(answer, asking);
	asking->error =
		-backend->ops.capacity(backend->userdata, &asking->bytes);
	pthread_cleanup_pop(1);
}

static void asked(struct errand *errand)
{
	struct asking *asking = asking_of(errand);

	/* Without a thread. */
	if (errand->error) {
		asking->error = -errand->error;
		answer(asking);
	}
	asking_unref(asking);
}

void device_forget_asking(struct ktvblk_dev *dev)
{
	if (!dev->asking)
		return;
	pthread_mutex_lock(&dev->asking->lock);
	dev->asking->dev = NULL;
	pthread_mutex_unlock(&dev->asking->lock);
}

void device_drop_asking(struct ktvblk_dev *dev)
{
	device_forget_asking(dev);
	if (dev->asking)
		asking_unref(dev->asking);
	dev->asking = NULL;
}

static bool is_out(struct asking *asking)
{
	SCOPED_LOCK(&asking->lock);

	return !asking->answered;
}

int ktvblk_refresh_capacity(struct ktvblk_dev *dev)
{
	struct asking *asking;
	int r;

	if (!dev)
		return -EINVAL;
	if (!dev->holdings || dev->stop_requested_ns ||
	    (dev->asking && is_out(dev->asking)))
		return -EBUSY;

	SCOPED_NO_CANCEL();
	asking = calloc(1, sizeof(*asking));
	if (!asking)
		return -ENOMEM;
	asking->errand.name = "ktvblk-size";
	asking->errand.run = ask;
	asking->errand.over = asked;
	r = errand_prepare(&asking->errand, dev->ports);
	if (r < 0) {
		free(asking);
		return r;
	}
	atomic_init(&asking->refs, 2);
	pthread_mutex_init(&asking->lock, NULL);
	asking->backend = ktvblk_backend_ref(dev->holdings->backend);
	asking->dev = dev;
	device_drop_asking(dev);
	dev->asking = asking;
	errand_start(&asking->errand);
	return 0;
}
