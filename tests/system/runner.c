/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See runner.h. What a case has to say lies in memory both processes share. */

#include <check.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include "runner.h"
#include "util.h"
#include "watch.h"

#define CASE_TIMEOUT_S 60u
#define END_TIMEOUT_MS 60000

enum verdict { RAN_NOT, PASSED, FAILED, SKIPPED };

struct result {
	enum verdict verdict;
	double took_ms; /* the longest call; below 0: none was timed */
	double over_ms; /* over its budget */
	char note[200];
	char why[600];
};

static struct result *result; /* of the case that runs */
static int said = -1; /* eventfd: it has a verdict */

void __wrap__ck_assert_failed(const char *file, int line, const char *expr,
			      const char *msg, ...);
void __wrap__mark_point(const char *file, int line);

/* The process may be held: so first the verdict, then the end. */
static _Noreturn void end_case(enum verdict verdict)
{
	result->verdict = verdict;
	eventfd_signal(said);
	_exit(0);
}

__attribute__((format(printf, 4, 5))) void
__wrap__ck_assert_failed(const char *file, int line, const char *expr,
			 const char *msg, ...)
{
	static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
	int n;
	va_list ap;

	pthread_mutex_lock(&once); /* for good: the first one counts */
	n = snprintf(result->why, sizeof(result->why), "%s:%d: ", file, line);
	va_start(ap, msg);
	if (msg)
		vsnprintf(result->why + n, sizeof(result->why) - (size_t)n, msg,
			  ap);
	else
		snprintf(result->why + n, sizeof(result->why) - (size_t)n, "%s",
			 expr);
	va_end(ap);
	end_case(FAILED);
}

void __wrap__mark_point(const char *file, int line)
{
	(void)file;
	(void)line;
}

_Atomic bool case_hides_stalls;

struct watch *__real_watch_scan(uint64_t now, uint64_t position,
				uint64_t *ret_again_ns,
				struct watch_snapshot *ret_seen);
struct watch *__wrap_watch_scan(uint64_t now, uint64_t position,
				uint64_t *ret_again_ns,
				struct watch_snapshot *ret_seen);
struct watch *__wrap_watch_scan(uint64_t now, uint64_t position,
				uint64_t *ret_again_ns,
				struct watch_snapshot *ret_seen)
{
	if (!case_hides_stalls)
		return __real_watch_scan(now, position, ret_again_ns, ret_seen);
	*ret_again_ns = now + NSEC_PER_MSEC;
	return NULL;
}

/* The nth number in a file, from 0; 0 where there is none. */
static uint64_t read_number(const char *path, unsigned int n)
{
	char text[200] = "";
	const char *at = text;

	__attribute__((cleanup(closep))) int fd =
		open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		return 0;
	at += strcspn(at, "0123456789");
	for (; n && *at; n--) {
		at += strcspn(at, " ");
		at += strspn(at, " ");
	}
	return strtoull(at, NULL, 10);
}

/*
 * How long this thread waited for a processor so far, and what the host took of
 * this machine's: who was to wake it may have lost that. 0 where it is unknown.
 */
static uint64_t waited_ns(void)
{
	const uint64_t tick_ns = NSEC_PER_SEC / (uint64_t)sysconf(_SC_CLK_TCK);

	return read_number("/proc/thread-self/schedstat", 1) +
	       read_number("/proc/stat", 7) * tick_ns;
}

static uint64_t call_began_ns, call_waited_ns;

void case_call_begins(void)
{
	call_waited_ns = waited_ns();
	call_began_ns = now_ns();
}

void case_call_ended(uint32_t budget_ms)
{
	const double took_ms = (double)(now_ns() - call_began_ns) / 1e6;
	const double idle_ms = (double)(waited_ns() - call_waited_ns) / 1e6;
	const double over_ms = took_ms - idle_ms - budget_ms;

	result->took_ms = MAX(result->took_ms, took_ms);
	result->over_ms = MAX(result->over_ms, over_ms);
	ck_assert_msg(over_ms <= GRACE_MS,
		      "took %.1f ms, %.1f of them without a processor; "
		      "budget %u ms",
		      took_ms, idle_ms, budget_ms);
}

void case_note(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(result->note, sizeof(result->note), format, ap);
	va_end(ap);
}

void case_skip(const char *why)
{
	snprintf(result->why, sizeof(result->why), "%s", why);
	end_case(SKIPPED);
}

static pid_t start_case(const struct system_case *test)
{
	const pid_t parent = getpid(), pid = fork();
	sigset_t none;

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	test->run(test->arg);
	end_case(PASSED);
}

/* Wait until fd is readable; false: it was not in time, or `stop` came. */
static bool wait_for(int fd, int other, int stop, int timeout_ms)
{
	struct pollfd fds[] = { { .fd = fd, .events = POLLIN },
				{ .fd = other, .events = POLLIN },
				{ .fd = stop, .events = POLLIN } };

	return poll(fds, 3, timeout_ms) > 0 && !fds[2].revents;
}

/* False: a signal asks us to stop. */
static bool run_case(const struct system_case *test, void (*let_go)(void),
		     int stop)
{
	const unsigned int timeout_s = test->timeout_s ? test->timeout_s
						       : CASE_TIMEOUT_S;
	int process, status = 0;
	pid_t pid;

	*result = (struct result){ .took_ms = -1, .over_ms = -1e9 };
	eventfd_drain(said);
	pid = start_case(test);
	process = (int)syscall(SYS_pidfd_open, pid, 0);
	wait_for(said, process, stop, (int)timeout_s * 1000);
	/* First this, or nothing could end it. */
	let_go();
	if (result->verdict == RAN_NOT)
		kill(pid, SIGKILL);
	if (wait_for(process, -1, -1, END_TIMEOUT_MS)) {
		waitpid(pid, &status, 0);
		if (result->verdict == RAN_NOT)
			snprintf(result->why, sizeof(result->why),
				 "died of signal %d, or of %u s having passed",
				 WTERMSIG(status), timeout_s);
	} else {
		result->verdict = RAN_NOT;
		strcpy(result->why, "its process cannot be ended");
	}
	close(process);
	if (result->verdict == RAN_NOT)
		result->verdict = FAILED;
	return !wait_for(stop, -1, -1, 0);
}

static void print_case(const struct system_case *test)
{
	static const char *const words[] = {
		[PASSED] = "ok", [FAILED] = "FAIL", [SKIPPED] = "skip"
	};

	printf("%-4s  %-44s", words[result->verdict], test->name);
	if (result->took_ms >= 0)
		printf(" %7.1f ms", result->took_ms);
	if (*result->note)
		printf("  %s", result->note);
	if (*result->why)
		printf("%s%s",
		       result->verdict == SKIPPED ? "skip: " : "\n      ",
		       result->why);
	printf("\n");
}

/* Once more, where whoever has only the end of the log finds it. */
static void print_failed(const struct system_case *cases, size_t n,
			 char *const *whys)
{
	for (size_t i = 0; i < n; i++)
		if (whys[i])
			printf("FAIL  %s: %s\n", cases[i].name, whys[i]);
}

static bool wanted(const struct system_case *test, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (strstr(test->name, argv[i]))
			return true;
	return argc < 2;
}

int run_cases(const struct system_case *cases, size_t n, void (*let_go)(void),
	      int argc, char **argv)
{
	unsigned int sums[SKIPPED + 1] = { 0 };
	const uint64_t start_ns = now_ns();
	char **whys = calloc(n, sizeof(*whys)); /* of those that failed */
	double worst_ms = -1e9;
	sigset_t signals;
	int stop;

	setvbuf(stdout, NULL, _IOLBF, 0);
	result = mmap(NULL, sizeof(*result), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	said = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	stop = signalfd(-1, &signals, SFD_CLOEXEC);
	if (!whys || result == MAP_FAILED || said < 0 || stop < 0) {
		perror("runner");
		return 1;
	}
	for (size_t i = 0; i < n; i++) {
		if (!wanted(&cases[i], argc, argv))
			continue;
		if (!run_case(&cases[i], let_go, stop)) {
			printf("stopped by a signal\n");
			return 1;
		}
		print_case(&cases[i]);
		if (result->verdict == FAILED)
			whys[i] = strdup(result->why);
		sums[result->verdict]++;
		worst_ms = MAX(worst_ms, result->over_ms);
	}
	print_failed(cases, n, whys);
	printf("%.1f s in all\n", (double)(now_ns() - start_ns) / 1e9);
	if (worst_ms > -1e9)
		printf("note: longest call %.1f ms over its budget\n",
		       worst_ms);
	printf("%u passed, %u failed, %u skipped\n", sums[PASSED], sums[FAILED],
	       sums[SKIPPED]);
	if (!sums[FAILED] && !sums[PASSED] && sums[SKIPPED])
		return 77;
	return sums[FAILED] || !sums[PASSED];
}
