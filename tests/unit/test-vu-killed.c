/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A back end that is killed in the midst of its work, again and again, and a new
 * one that takes over: each request is answered once, and every byte is right.
 */

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "device.h"
#include "front-end.h"
#include "wedge.h"

#define REQUESTS 8u
#define SLOTS 64u
#define BYTES 4096u
#define DISK_BYTES (REQUESTS * SLOTS * BYTES)

struct load {
	struct front_end front;
	pid_t server;
	int disk_fd;
	uint32_t model[DISK_BYTES / BYTES]; /* what each block is filled with */
	uint32_t next;
	uint16_t used;
	struct {
		bool busy;
		uint32_t block, value;
	} out[REQUESTS];
	unsigned int n_done;
};

static _Noreturn void serve(const struct load *load)
{
	struct ktvblk_config config = KTVBLK_CONFIG_INIT;
	struct ktvblk_dev *dev;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (ktvblk_backend_new_fd(load->disk_fd, NULL, NULL, &config.backend) ||
	    ktvblk_new(&config, &dev) ||
	    ktvblk_vhost_user_start(dev, load->front.listen_fd, 0))
		_exit(1);
	for (;;)
		pause();
}

static void start_server(struct load *load)
{
	fflush(NULL);
	load->server = fork();
	ck_assert_int_ge(load->server, 0);
	if (!load->server)
		serve(load);
}

static void kill_server(struct load *load)
{
	int status;

	ck_assert_int_eq(kill(load->server, SIGKILL), 0);
	ck_assert_int_eq(waitpid(load->server, &status, 0), load->server);
	ck_assert(WIFSIGNALED(status));
}

/* A front end without a device of this process's. */
static void open_load(struct load *load)
{
	struct front_end *front = &load->front;

	memset(load, 0, sizeof(*load));
	front_open_alone(front, 128);
	load->disk_fd = memfd_create("disk", MFD_CLOEXEC);
	ck_assert_int_eq(ftruncate(load->disk_fd, DISK_BYTES), 0);
}

/* Its own head, header, data and status for each of them. */
static void submit(struct load *load, unsigned int i)
{
	struct rig *rig = &load->front.rig;
	const uint32_t block = (load->next * 37 + i) % SLOTS * REQUESTS + i;
	const struct rig_part data = { RIG_DATA + i * BYTES, BYTES, READABLE };
	uint32_t *words = (uint32_t *)rig_at(rig, data.addr);

	load->next++;
	for (unsigned int w = 0; w < BYTES / 4; w++)
		words[w] = load->next;
	load->out[i].busy = true;
	load->out[i].block = block;
	load->out[i].value = load->next;
	rig_data(rig, (uint16_t)(4 * i), VIRTIO_BLK_T_OUT,
		 (uint64_t)block * BYTES / 512, &data, 1);
	rig_avail(rig, (uint16_t)(4 * i));
}

static void submit_all(struct load *load)
{
	for (unsigned int i = 0; i < REQUESTS; i++)
		if (!load->out[i].busy)
			submit(load, i);
	rig_kick(&load->front.rig);
}

static void take_used(struct load *load)
{
	struct rig *rig = &load->front.rig;

	for (; load->used != rig_used_idx(rig); load->used++) {
		const unsigned int i = rig_used(rig, load->used).id / 4;

		ck_assert_uint_lt(i, REQUESTS);
		/* Not one that was answered before. */
		ck_assert(load->out[i].busy);
		ck_assert_uint_eq(*rig_chain_status(rig, (uint16_t)(4 * i)),
				  VIRTIO_BLK_S_OK);
		load->out[i].busy = false;
		load->model[load->out[i].block] = load->out[i].value;
		load->n_done++;
	}
}

static void connect_to_server(struct load *load, bool first)
{
	struct front_end *front = &load->front;

	front_connect(front);
	front_negotiate(front);
	front_set_memory(front);
	if (first)
		front_get_inflight(front);
	/* All that is known of one that was killed is what it used. */
	front_start_again(front, rig_used_idx(&front->rig));
}

START_TEST(a_back_end_that_is_killed_loses_and_doubles_nothing)
{
	const unsigned int n = rounds("VU_KILLS", 40, 5);
	static struct load load;
	struct front_end *front = &load.front;
	uint32_t *words;

	open_load(&load);
	for (unsigned int kill = 0; kill < n; kill++) {
		const unsigned int until = load.n_done + 20 + kill * 13 % 90;

		start_server(&load);
		connect_to_server(&load, kill == 0);
		while (load.n_done < until) {
			const unsigned int before = load.n_done;

			submit_all(&load);
			ck_assert(eventually(rig_used_idx(&front->rig) !=
					     load.used));
			take_used(&load);
			ck_assert_uint_gt(load.n_done, before);
		}
		submit_all(&load);
		kill_server(&load);
		front_disconnect(front);
	}
	/* The last one does what the others left. */
	start_server(&load);
	connect_to_server(&load, false);
	ck_assert(eventually((take_used(&load), rig_used_idx(&front->rig) ==
							front->rig.avail_idx)));
	take_used(&load);
	for (unsigned int i = 0; i < REQUESTS; i++)
		ck_assert(!load.out[i].busy);
	front_stop(front, 0);
	kill_server(&load);
	words = mmap(NULL, DISK_BYTES, PROT_READ, MAP_SHARED, load.disk_fd, 0);
	ck_assert_ptr_ne(words, MAP_FAILED);
	for (unsigned int b = 0; b < DISK_BYTES / BYTES; b++)
		for (unsigned int w = 0; w < BYTES / 4; w++)
			ck_assert_uint_eq(words[b * BYTES / 4 + w],
					  load.model[b]);
	munmap(words, DISK_BYTES);
	close(load.disk_fd);
	front_free_alone(front);
}
END_TEST

TEST_PROGRAM("vu-killed", a_back_end_that_is_killed_loses_and_doubles_nothing)
