/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See report.h. */

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "report.h"

static FILE *create(const char *prefix, const char *suffix)
{
	char path[4096];
	FILE *file;

	snprintf(path, sizeof(path), "%s%s", prefix, suffix);
	file = fopen(path, "we");
	if (!file)
		die("%s: %s", path, strerror(errno));
	return file;
}

/* To the terminal and to the file. */
__attribute__((format(printf, 2, 3))) static void say(struct report *report,
						      const char *format, ...)
{
	va_list args;

	if (!report->quiet) {
		va_start(args, format);
		vprintf(format, args);
		va_end(args);
	}
	va_start(args, format);
	vfprintf(report->table, format, args);
	va_end(args);
	fflush(stdout);
}

void report_open(struct report *report, const char *prefix, const char *about,
		 bool against, bool quiet)
{
	*report = (struct report){
		.json = create(prefix, ".json"),
		.table = create(prefix, ".txt"),
		.plot = create(prefix, ".dat"),
		.quiet = quiet,
	};
	fprintf(report->json, "{ \"about\": \"%s\",\n  \"cases\": [", about);
	say(report, "%s\n\n", about);
	say(report,
	    "Worker CPU, time for a request and median latency over those of "
	    "the limit: the bare\nloop of the same calls, with O_DIRECT an "
	    "io_uring with the same depth, or at depth 1 an\neventfd ping-pong "
	    "with them. Medians of the rounds, the best in brackets. drv is "
	    "the\ndriver's CPU, the other counts the worker's, per request. "
	    "Then the two loops, whether\nthey are the limit or not.\n");
	if (against)
		say(report,
		    "x old: the same over those of the other build, with "
		    "quartiles of the rounds.\n");
	say(report, "\n%-44s %13s %13s %13s", "case", "cpu", "time", "latency");
	if (against)
		say(report, " %20s %20s %6s", "x old: cpu", "time", "p50");
	say(report, " %8s %6s %6s %6s %6s %7s %5s %5s %5s %5s  %14s  %20s\n",
	    "kreq/s", "p50us", "p99us", "p99.9", "cpu ns", "drv ns", "sysc",
	    "kicks", "irqs", "alloc", "calls: k/s cpu", "ring: k/s  cpu  sysc");
}

static void say_ratio(struct report *report, bool has, struct ratio ratio)
{
	if (has)
		say(report, "  %5.2f (%4.2f)", ratio.median, ratio.best);
	else
		say(report, " %13s", "-");
}

static void say_against(struct report *report, const struct result *result)
{
	const struct ratio *cpu = &result->against_cpu;
	const struct ratio *elapsed = &result->against_elapsed;

	say(report, "  %5.3f (%4.2f - %4.2f)  %5.3f (%4.2f - %4.2f)  %5.3f",
	    cpu->median, cpu->low, cpu->high, elapsed->median, elapsed->low,
	    elapsed->high, result->against_latency.median);
}

static void json_figures(FILE *json, const char *name, const struct figures *f)
{
	fprintf(json,
		",\n      \"%s\": { \"requests_per_s\": %.0f, "
		"\"elapsed_ns\": %.1f, \"worker_cpu_ns\": %.1f, "
		"\"driver_cpu_ns\": %.1f, \"syscalls\": %.4f, "
		"\"allocations\": %.4f, \"kicks\": %.4f, \"irqs\": %.4f, "
		"\"preempted\": %.0f, \"p50_ns\": %.0f, \"p99_ns\": %.0f, "
		"\"p999_ns\": %.0f }",
		name, f->requests_per_s, f->elapsed_ns, f->worker_cpu_ns,
		f->driver_cpu_ns, f->syscalls, f->allocations, f->kicks,
		f->irqs, f->preempted, f->p50_ns, f->p99_ns, f->p999_ns);
}

static void json_ratio(FILE *json, const char *name, struct ratio ratio)
{
	fprintf(json,
		",\n      \"%s\": { \"median\": %.4f, \"low\": %.4f, "
		"\"high\": %.4f, \"best\": %.4f }",
		name, ratio.median, ratio.low, ratio.high, ratio.best);
}

static void json_case(FILE *json, const struct result *result)
{
	fprintf(json, "{ \"name\": \"%s\"", result->what->name);
	if (result->has_limit) {
		json_ratio(json, "cpu_ratio", result->cpu);
		json_ratio(json, "elapsed_ratio", result->elapsed);
	}
	if (result->has_latency)
		json_ratio(json, "latency_ratio", result->latency);
	if (result->has_against) {
		json_ratio(json, "against_cpu_ratio", result->against_cpu);
		json_ratio(json, "against_elapsed_ratio",
			   result->against_elapsed);
		json_ratio(json, "against_latency_ratio",
			   result->against_latency);
	}
	json_figures(json, "device", &result->device);
	if (result->has_against)
		json_figures(json, "against", &result->against);
	if (result->has_latency)
		json_figures(json, "ping_pong", &result->limit);
	if (result->has_bare)
		json_figures(json, "bare", &result->bare);
	if (result->has_ring)
		json_figures(json, "ring", &result->ring);
	if (result->has_limit)
		fprintf(json, ",\n      \"limit\": \"%s\"", result->limit_name);
	fprintf(json, " }");
}

static const char *separator(struct report *report)
{
	return report->n++ ? ",\n    " : "\n    ";
}

static void say_loops(struct report *report, const struct result *result)
{
	if (result->has_bare)
		say(report, "  %8.1f %5.0f", result->bare.requests_per_s / 1000,
		    result->bare.worker_cpu_ns);
	else
		say(report, "  %14s", "-");
	if (result->has_ring)
		say(report, "  %8.1f %5.0f %5.2f\n",
		    result->ring.requests_per_s / 1000,
		    result->ring.worker_cpu_ns, result->ring.syscalls);
	else
		say(report, "  %20s\n", "-");
}

void report_case(struct report *report, const struct result *result)
{
	const struct figures *f = &result->device;

	say(report, "%-44s", result->what->name);
	say_ratio(report, result->has_limit, result->cpu);
	say_ratio(report, result->has_limit, result->elapsed);
	say_ratio(report, result->has_latency, result->latency);
	if (result->has_against)
		say_against(report, result);
	say(report,
	    " %8.1f %6.1f %6.1f %6.1f %6.0f %7.0f %5.2f %5.2f %5.2f %5.2f",
	    f->requests_per_s / 1000, f->p50_ns / 1000, f->p99_ns / 1000,
	    f->p999_ns / 1000, f->worker_cpu_ns, f->driver_cpu_ns, f->syscalls,
	    f->kicks, f->irqs, f->allocations);
	say_loops(report, result);
	fprintf(report->json, "%s", separator(report));
	json_case(report->json, result);
	fprintf(report->plot, "\"%s\" %.1f %.1f\n", result->what->name,
		result->limit.worker_cpu_ns, f->worker_cpu_ns);
}

void report_skip(struct report *report, const char *name, const char *why)
{
	say(report, "%-44s  skipped: %s\n", name, why);
	if (report->cases_ended)
		return;
	fprintf(report->json, "%s{ \"name\": \"%s\", \"skipped\": \"%s\" }",
		separator(report), name, why);
}

/* Another member of the outermost object. */
static void json_member(struct report *report, const char *name)
{
	if (report->beside_begun)
		fprintf(report->json, "\n  ]");
	report->beside_begun = false;
	if (!report->cases_ended)
		fprintf(report->json, "\n  ]");
	report->cases_ended = true;
	fprintf(report->json, ",\n  \"%s\": ", name);
}

static void beside_row(struct report *report, const char *store,
		       const char *who, const struct beside_reads *reads)
{
	say(report, "%-8s %-35s %8.1f %8.1f %8.1f %8.1f %8.2f\n", store, who,
	    reads->p50_ns / 1000, reads->p99_ns / 1000,
	    reads->with_p50_ns / 1000, reads->with_p99_ns / 1000,
	    reads->p99_ratio);
	fprintf(report->json,
		"%s\n    { \"store\": \"%s\", \"who\": \"%s\", "
		"\"p50_ns\": %.0f, \"p99_ns\": %.0f, \"with_p50_ns\": %.0f, "
		"\"with_p99_ns\": %.0f, \"p99_ratio\": %.4f }",
		report->beside_begun ? "," : "[", store, who, reads->p50_ns,
		reads->p99_ns, reads->with_p50_ns, reads->with_p99_ns,
		reads->p99_ratio);
	report->beside_begun = true;
}

void report_beside(struct report *report, const struct beside *beside)
{
	const char *store = store_name(beside->store);

	if (!report->beside_begun) {
		say(report,
		    "\nReads, 32 in flight, alone and beside one writer that "
		    "flushes after each write, in us.\n\n"
		    "%-44s %8s %8s %8s %8s %8s\n",
		    "", "p50", "p99", "with p50", "p99", "p99 over");
		json_member(report, "beside");
	}
	report->n++;
	beside_row(report, store, "device", &beside->device);
	if (beside->has_ring)
		beside_row(report, store, "ring", &beside->ring);
}

void report_life(struct report *report, const struct life *life)
{
	say(report,
	    "\nStart and end of a device, %u times, in us; the limit is a bare "
	    "thread that answers\nor is joined. Threads of a life beside its "
	    "workers: %.3f.\n\n%-44s %8s %8s %8s %8s\n",
	    life->n, life->threads, "", "p50", "p99", "limit", "p50 over");
	report->n++;
	json_member(report, "life");
	fprintf(report->json, "{ \"n\": %u, \"threads\": %.3f, \"steps\": [",
		life->n, life->threads);
	for (unsigned int i = 0; i < STEPS; i++) {
		const double p50 = life->steps[i].p50_ns;
		const double p99 = life->steps[i].p99_ns;
		const double limit = life->steps[i].limit_ns;

		say(report, "%-44s %8.1f %8.1f %8.1f %8.2f\n",
		    life->steps[i].name, p50 / 1000, p99 / 1000, limit / 1000,
		    p50 / limit);
		fprintf(report->json,
			"%s\n    { \"name\": \"%s\", \"p50_ns\": %.0f, "
			"\"p99_ns\": %.0f, \"limit_ns\": %.0f }",
			i ? "," : "", life->steps[i].name, p50, p99, limit);
	}
	fprintf(report->json, "\n  ] }");
}

void report_scale(struct report *report, const struct scale scales[SCALES])
{
	say(report,
	    "\nDevices in one process. For each when idle: memory in KiB "
	    "without the guest's, threads.\nFor all: context switches when "
	    "idle, requests when at work, and those over one device's.\n\n"
	    "%8s %8s %8s %8s %8s %10s %8s %8s\n",
	    "devices", "RSS", "anon", "heap", "threads", "switches/s", "kreq/s",
	    "of one");
	report->n++;
	json_member(report, "scale");
	for (const struct scale *s = scales; s < scales + SCALES; s++) {
		say(report, "%8u %8.1f %8.1f %8.1f %8.2f %10.2f %8.1f %8.2f\n",
		    s->n, s->rss_bytes / 1024, s->anonymous_bytes / 1024,
		    s->heap_bytes / 1024, s->threads, s->switches_per_s,
		    s->requests_per_s / 1000, s->ratio);
		fprintf(report->json,
			"%s\n    { \"devices\": %u, \"rss_bytes\": %.0f, "
			"\"anonymous_bytes\": %.0f, \"heap_bytes\": %.0f, "
			"\"threads\": %.2f, \"switches_per_s\": %.2f, "
			"\"requests_per_s\": %.0f, \"ratio\": %.4f }",
			s == scales ? "[" : ",", s->n, s->rss_bytes,
			s->anonymous_bytes, s->heap_bytes, s->threads,
			s->switches_per_s, s->requests_per_s, s->ratio);
	}
	fprintf(report->json, "\n  ]");
}

void report_close(struct report *report, const struct noise *noise)
{
	say(report,
	    "\nOf the machine's time %.1f %% was stolen by the "
	    "hypervisor and %.1f %% used by others%s.\n",
	    noise->stolen * 100, noise->others * 100,
	    noise->stolen > 0.01 || noise->others > 0.05
		    ? ": noisy, trust ratios and bests"
		    : "");
	json_member(report, "stolen");
	fprintf(report->json, "%.4f", noise->stolen);
	json_member(report, "others");
	fprintf(report->json, "%.4f\n}\n", noise->others);
	fclose(report->json);
	fclose(report->table);
	fclose(report->plot);
}
