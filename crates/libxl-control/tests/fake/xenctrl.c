/*
 * Stands in for libxenctrl and libxentoollog in tests: the functions that Domkeep calls, over domains and CPU pools that are a few
 * numbers in memory. It can fail as the real one does. Nothing of it is Xen's; licensed as Domkeep is.
 */

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define MOST 16

enum { CREDIT = 5, CREDIT2 = 6, RTDS = 8 };

/* As the hypervisor answers; what follows the pool differs from version to version. */
typedef struct {
	uint16_t domid;
	uint16_t pad;
	uint32_t flags;
	uint64_t pages[5], frame, time;
	uint32_t online, last_vcpu, label;
	uint8_t uuid[16];
	uint32_t pool;
	uint8_t later[60];
} __attribute__((aligned(8))) dominfo;

typedef struct {
	uint32_t id, sched, domains;
	uint8_t *cpus;
} poolinfo;

typedef struct {
	FILE *file;
} logger;

typedef struct {
	logger *log;
} interface;

static struct {
	uint32_t domid, pool, a, b;
	uint8_t uuid[16];
} domains[MOST];
static struct {
	uint32_t id, sched;
} pools[MOST];
static int domain_count, pool_count;
static char fault[64];
static atomic_int calls, overlaps, infos, interfaces;

static bool strikes(const char *what)
{
	bool it_does = !strcmp(fault, what);
	if (it_does)
		fault[0] = 0;
	return it_does;
}

static int fails(int number)
{
	errno = number;
	return -1;
}

static void begin(void)
{
	if (atomic_fetch_add(&calls, 1))
		atomic_fetch_add(&overlaps, 1);
	for (int i = 0; i < 20; i++)
		sched_yield();
}

static void end(void) { atomic_fetch_sub(&calls, 1); }

/* What a test does. Domains and pools are in ascending order. */

EXPORT void fake_fault(const char *what) { snprintf(fault, sizeof(fault), "%s", what); }

EXPORT void fake_pool(uint32_t id, uint32_t sched)
{
	pools[pool_count].id = id;
	pools[pool_count++].sched = sched;
}

EXPORT void fake_domain(uint32_t domid, const uint8_t *uuid, uint32_t pool, uint32_t a, uint32_t b)
{
	domains[domain_count].domid = domid;
	domains[domain_count].pool = pool;
	domains[domain_count].a = a;
	domains[domain_count].b = b;
	memcpy(domains[domain_count++].uuid, uuid, 16);
}

EXPORT int fake_overlaps(void) { return overlaps; }

/* What was handed out and not given back. */
EXPORT int fake_left(void) { return infos + interfaces; }

/* libxentoollog */

EXPORT void *xtl_createlogger_stdiostream(FILE *file, int level, unsigned flags)
{
	(void)level;
	(void)flags;
	logger *l = calloc(1, sizeof(*l));
	l->file = file;
	return l;
}

EXPORT void xtl_logger_destroy(void *l) { free(l); }

/* libxenctrl */

static void report(logger *l, const char *text)
{
	fprintf(l->file, "xc: error: %s\n", text);
	fflush(l->file);
}

EXPORT interface *xc_interface_open(logger *log, logger *build_log, unsigned flags)
{
	(void)build_log;
	(void)flags;
	if (strikes("no interface")) {
		report(log, "Could not obtain handle on privileged command interface");
		errno = ENOENT;
		return NULL;
	}
	interface *i = calloc(1, sizeof(*i));
	i->log = log;
	interfaces++;
	return i;
}

EXPORT int xc_interface_close(interface *i)
{
	free(i);
	interfaces--;
	return 0;
}

static int list(interface *i, uint32_t first, unsigned most, dominfo *all)
{
	unsigned found = 0;
	if (strikes("list fails")) {
		report(i->log, "is the tool set that of this hypervisor?");
		return fails(EACCES);
	}
	for (int at = 0; at < domain_count && found < most; at++) {
		if (domains[at].domid < first)
			continue;
		dominfo *info = &all[found++];
		memset(info, 0xee, sizeof(*info));
		info->domid = (uint16_t)domains[at].domid;
		memcpy(info->uuid, domains[at].uuid, 16);
		info->pool = domains[at].pool;
	}
	return (int)found;
}

EXPORT int xc_domain_getinfolist(interface *i, uint32_t first, unsigned most, dominfo *all)
{
	begin();
	int found = list(i, first, most, all);
	end();
	return found;
}

EXPORT poolinfo *xc_cpupool_getinfo(interface *i, uint32_t first)
{
	(void)i;
	for (int at = 0; at < pool_count; at++) {
		if (pools[at].id < first)
			continue;
		poolinfo *info = calloc(1, sizeof(*info));
		info->id = pools[at].id;
		info->sched = pools[at].sched;
		info->cpus = calloc(1, 8);
		infos++;
		return info;
	}
	errno = ENOENT;
	return NULL;
}

EXPORT void xc_cpupool_infofree(interface *i, poolinfo *info)
{
	(void)i;
	free(info->cpus);
	free(info);
	infos--;
}

/* A scheduler knows nothing of another's domains. */
static int params(uint32_t domid, uint32_t sched, uint32_t *a, uint32_t *b)
{
	if (strikes("gone meanwhile"))
		return fails(ESRCH);
	if (strikes("parameters fail"))
		return fails(EPERM);
	for (int at = 0; at < domain_count; at++) {
		if (domains[at].domid != domid)
			continue;
		for (int pool = 0; pool < pool_count; pool++)
			if (pools[pool].id == domains[at].pool && pools[pool].sched == sched) {
				*a = domains[at].a;
				*b = domains[at].b;
				return 0;
			}
		return fails(EINVAL);
	}
	return fails(ESRCH);
}

struct credit {
	uint16_t weight, cap;
};

static int credit(uint32_t domid, uint32_t sched, struct credit *told)
{
	uint32_t weight = 0, cap = 0;
	int rc = params(domid, sched, &weight, &cap);
	if (!rc)
		*told = (struct credit){ (uint16_t)weight, (uint16_t)cap };
	return rc;
}

EXPORT int xc_sched_credit_domain_get(interface *i, uint32_t domid, struct credit *told)
{
	(void)i;
	return credit(domid, CREDIT, told);
}

EXPORT int xc_sched_credit2_domain_get(interface *i, uint32_t domid, struct credit *told)
{
	(void)i;
	return credit(domid, CREDIT2, told);
}

#ifndef WITHOUT_RTDS
struct rtds {
	uint32_t period, budget, flags;
};

EXPORT int xc_sched_rtds_domain_get(interface *i, uint32_t domid, struct rtds *told)
{
	(void)i;
	told->flags = 1;
	return params(domid, RTDS, &told->period, &told->budget);
}
#endif
