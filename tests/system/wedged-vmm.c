/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A VMM and its guest in one, with one disk whose storage hangs when told to.
 * A command is a word on a line of stdin, the answer a line on stdout:
 *
 *   new NAME   a device, started, with nothing to do
 *   hang       the storage takes no request any more, and the guest makes one
 *   reset      the guest resets the device, and starts it again
 *   destroy    end the device; the answer is the outcome
 *   release    the storage goes on
 *   panic      the storage's call ends the worker
 *   wait       until nothing hangs any more
 *   stalled    until the request counts as stalled
 *   id         pid, INSTANCE_ID and STOP_FD
 *   log F=V... send a record with these fields, that nobody made
 */

#include <dirent.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "ktvblk.h"

#define RAM_BYTES 65536
#define DESC 0x1000u
#define AVAIL 0x2000u
#define USED 0x3000u
#define HEADER 0x4000u
#define DATA 0x5000u
#define STATUS 0x7000u
#define SECTOR 2048

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int hanging;
static int inside; /* calls into the storage */
static pid_t caller; /* of the last one */
static int panicking;
static unsigned char *ram;
static struct ktvblk_mem *mem;
static struct ktvblk_backend *backend;
static struct ktvblk_dev *dev;

static ssize_t slow_preadv(void *userdata, const struct iovec *iov, int n_iov,
			   uint64_t offset)
{
	ssize_t n = 0;
	int panic;

	(void)userdata, (void)offset;
	pthread_mutex_lock(&lock);
	inside++;
	caller = gettid();
	pthread_cond_broadcast(&changed);
	while (hanging && !panicking)
		pthread_cond_wait(&changed, &lock);
	panic = panicking;
	panicking = 0;
	inside--;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	if (panic)
		pthread_exit(NULL);
	for (int i = 0; i < n_iov; i++)
		n += (ssize_t)iov[i].iov_len;
	return n;
}

static int slow_capacity(void *userdata, uint64_t *ret_bytes)
{
	(void)userdata;
	*ret_bytes = 256 << 20;
	return 0;
}

static void put(uint64_t offset, uint32_t value)
{
	ktvblk_mmio_write(dev, offset, &value, sizeof(value));
}

static void start(void)
{
	struct vring_desc *desc = (struct vring_desc *)(void *)(ram + DESC);

	memset(ram, 0, RAM_BYTES);
	desc[0] = (struct vring_desc){ HEADER, 16, VRING_DESC_F_NEXT, 1 };
	desc[1] = (struct vring_desc){ DATA, 4096,
				       VRING_DESC_F_NEXT | VRING_DESC_F_WRITE,
				       2 };
	desc[2] = (struct vring_desc){ STATUS, 1, VRING_DESC_F_WRITE, 0 };
	ram[HEADER + 9] = SECTOR >> 8;
	put(VIRTIO_MMIO_STATUS, 1);
	put(VIRTIO_MMIO_STATUS, 3);
	put(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	put(VIRTIO_MMIO_DRIVER_FEATURES, 1);
	put(VIRTIO_MMIO_STATUS, 11);
	put(VIRTIO_MMIO_QUEUE_NUM, 8);
	put(VIRTIO_MMIO_QUEUE_DESC_LOW, DESC);
	put(VIRTIO_MMIO_QUEUE_AVAIL_LOW, AVAIL);
	put(VIRTIO_MMIO_QUEUE_USED_LOW, USED);
	put(VIRTIO_MMIO_QUEUE_READY, 1);
	put(VIRTIO_MMIO_STATUS, 15);
}

static void request(void)
{
	volatile uint16_t *avail = (uint16_t *)(void *)(ram + AVAIL);

	avail[2 + avail[1] % 8] = 0;
	__atomic_fetch_add(&avail[1], 1, __ATOMIC_SEQ_CST);
	put(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
}

static int new_device(const char *name)
{
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;

	config.backend = backend;
	config.name = name;
	config.flags = KTVBLK_READ_ONLY;
	config.reset_timeout_ms = config.destroy_timeout_ms = 50;
	config.stall_warn_ms = 250;
	if (ktvblk_new(&config, &dev) < 0)
		return -1;
	ktvblk_set_memory(dev, mem);
	start();
	return 0;
}

static void await_inside(int n)
{
	pthread_mutex_lock(&lock);
	while (inside != n)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

static void set(int *flag, int value)
{
	pthread_mutex_lock(&lock);
	*flag = value;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static void await_state(int state, int is)
{
	while (dev && (ktvblk_get_state(dev) == state) != is)
		poll(NULL, 0, 1);
}

/* Where there is no /proc nobody can tell. */
static int has_thread(const char *wanted)
{
	char path[300], name[32];
	DIR *tasks = opendir("/proc/self/task");
	const struct dirent *task;
	int found = 0;

	while (tasks && (task = readdir(tasks))) {
		FILE *comm;

		snprintf(path, sizeof(path), "/proc/self/task/%s/comm",
			 task->d_name);
		comm = fopen(path, "re");
		if (!comm)
			continue;
		found |= fgets(name, sizeof(name), comm) &&
			 !strcmp(name, wanted);
		fclose(comm);
	}
	if (tasks)
		closedir(tasks);
	return found;
}

static void await_end(const char *thread)
{
	while (has_thread(thread))
		poll(NULL, 0, 1);
}

/* A destroyed device has no state to ask, but its thread makes the record. */
static void await_reclaimed(void)
{
	await_end("ktvblk-drop\n");
}

/* NEEDS_RESET is not its last act. */
static void await_worker_end(void)
{
	struct ktvblk_identity id;
	char name[32];

	ktvblk_get_identity(dev, &id, sizeof(id));
	snprintf(name, sizeof(name), "ktvblk-%llu\n",
		 (unsigned long long)id.instance_id);
	await_end(name);
}

/* What is told of a thread is to be where it waits, not on its way there. */
static void await_asleep(void)
{
	char path[64], state;
	FILE *stat;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)caller);
	do {
		stat = fopen(path, "re");
		if (!stat)
			return;
		if (fscanf(stat, "%*d %*s %c", &state) != 1)
			state = '?';
		fclose(stat);
	} while (state != 'S' && poll(NULL, 0, 1) == 0);
}

static int send_fields(char *fields)
{
	struct iovec iov[32];
	int n = 0;

	for (char *f = strtok(fields, " "); f && n < 32; f = strtok(NULL, " "))
		iov[n++] = (struct iovec){ f, strlen(f) };
	return sd_journal_sendv(iov, n);
}

static void answer(char *command)
{
	struct ktvblk_identity id;
	char *name = strchr(command, ' ');

	if (name)
		*name++ = '\0';
	if (!strcmp(command, "new")) {
		puts(new_device(name) < 0 ? "failed" : "ok");
	} else if (!strcmp(command, "hang")) {
		set(&hanging, 1);
		request();
		await_inside(1);
		await_asleep();
		puts("ok");
	} else if (!strcmp(command, "reset")) {
		put(VIRTIO_MMIO_STATUS, 0);
		puts(ktvblk_state_name(ktvblk_get_state(dev)));
		start();
	} else if (!strcmp(command, "destroy")) {
		puts(ktvblk_outcome_name(ktvblk_destroy(dev)));
		dev = NULL;
	} else if (!strcmp(command, "release")) {
		set(&hanging, 0);
		await_inside(0);
		puts("ok");
	} else if (!strcmp(command, "panic")) {
		set(&panicking, 1);
		await_state(KTVBLK_STATE_NEEDS_RESET, 1);
		await_worker_end();
		puts("ok");
	} else if (!strcmp(command, "wait")) {
		await_state(KTVBLK_STATE_WEDGED, 0);
		await_state(KTVBLK_STATE_STALLED, 0);
		await_reclaimed();
		puts("ok");
	} else if (!strcmp(command, "stalled")) {
		await_state(KTVBLK_STATE_STALLED, 1);
		puts("ok");
	} else if (!strcmp(command, "id")) {
		ktvblk_get_identity(dev, &id, sizeof(id));
		printf("%d %llu %d\n", (int)getpid(),
		       (unsigned long long)id.instance_id, id.stop_fd);
	} else if (!strcmp(command, "log")) {
		puts(send_fields(name) < 0 ? "failed" : "ok");
	} else {
		puts("what?");
	}
}

int main(void)
{
	const struct ktvblk_backend_ops ops = {
		.size = sizeof(ops),
		.preadv = slow_preadv,
		.capacity = slow_capacity,
	};
	struct ktvblk_region region = { .size = RAM_BYTES };
	char line[4096];

	ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	region.host_addr = ram;
	if (ram == MAP_FAILED ||
	    ktvblk_mem_new(&region, 1, NULL, NULL, &mem) < 0 ||
	    ktvblk_backend_new(&ops, NULL, &backend) < 0)
		return 1;
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		answer(line);
		ktvblk_log_flush(5000);
		fflush(stdout);
	}
	ktvblk_mem_unref(mem);
	ktvblk_backend_unref(backend);
	return 0;
}
