/*
 * Stands in for libxenlight and libxentoollog in tests: the functions that Domkeep calls, over domains that are a few numbers in
 * memory. It can misbehave as the real one was seen to, and worse. Nothing of it is Xen's; licensed as Domkeep is.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define DOMAINS 64
#define PAYLOAD (3 << 20) /* more than a pipe holds */

enum { FAIL = -3, GUEST_TIMEDOUT = -8, DOMAIN_NOTFOUND = -21, ABORTED = -22, NOTFOUND = -23 };
enum { POWEROFF = 0, SUSPEND = 2, CRASH = 3 };

typedef struct {
	bool there, shutdown, dying;
	uint32_t domid;
	uint8_t uuid[16];
	char name[128];
	int pauses, reason;
	uint64_t run_ns, since_ns;
} domain;

typedef struct {
	FILE *file;
} logger;

typedef struct {
	logger *log;
	int owner;
	bool busy, aborting;
} ctx;

/* Larger than its members need, as a later version's might be. */
typedef struct {
	uint8_t uuid[16];
	uint32_t domid;
	bool running, paused, shutdown, dying;
	int reason;
	char *label;
	uint8_t later[40];
} dominfo;

typedef struct {
	char *name;
	uint8_t uuid[16];
	uint8_t rest[1000];
} config;

typedef struct {
	int version;
	uint8_t rest[20];
} restore_params;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static domain domains[DOMAINS];
static uint32_t next_domid = 1;
static char fault[64];
static int touched_zero, contexts, wrong_reaper;
static void (*store)(void *, const char *, const char *);
static void *store_arg;

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void nap(int ms)
{
	struct timespec t = { ms / 1000, (ms % 1000) * 1000000L };
	nanosleep(&t, NULL);
}

static bool runs(const domain *d)
{
	return d->there && !d->shutdown && !d->dying && !d->pauses;
}

/* Before and after a change: time only counts while the guest runs. */
static void stop_clock(domain *d)
{
	if (runs(d))
		d->run_ns += now_ns() - d->since_ns;
}

static void start_clock(domain *d)
{
	if (runs(d))
		d->since_ns = now_ns();
}

static domain *find(uint32_t domid)
{
	for (int i = 0; i < DOMAINS; i++)
		if (domains[i].there && domains[i].domid == domid)
			return &domains[i];
	return NULL;
}

static bool strikes(const char *what)
{
	pthread_mutex_lock(&lock);
	bool it_does = !strcmp(fault, what);
	if (it_does)
		fault[0] = 0;
	pthread_mutex_unlock(&lock);
	return it_does;
}

static void tell(uint32_t domid, const char *below, const char *value)
{
	char path[128];
	snprintf(path, sizeof(path), "/local/domain/%u/%s", domid, below);
	if (store)
		store(store_arg, path, value);
}

static void report(ctx *c, const char *format, ...)
{
	va_list list;
	va_start(list, format);
	fprintf(c->log->file, "libxl: error: ");
	vfprintf(c->log->file, format, list);
	fprintf(c->log->file, "\n");
	fflush(c->log->file);
	va_end(list);
}

static void begin(ctx *c)
{
	pthread_mutex_lock(&lock);
	c->busy = true;
	c->aborting = false;
	pthread_mutex_unlock(&lock);
}

static bool is_aborting(ctx *c)
{
	pthread_mutex_lock(&lock);
	bool aborting = c->aborting;
	pthread_mutex_unlock(&lock);
	return aborting;
}

static int end(ctx *c, int rc)
{
	pthread_mutex_lock(&lock);
	c->busy = false;
	pthread_mutex_unlock(&lock);
	return rc;
}

/* What a test does. */

EXPORT void fake_store(void (*set)(void *, const char *, const char *), void *arg)
{
	store = set;
	store_arg = arg;
}

EXPORT void fake_fault(const char *what)
{
	pthread_mutex_lock(&lock);
	snprintf(fault, sizeof(fault), "%s", what);
	pthread_mutex_unlock(&lock);
}

static domain *add(const char *name, const uint8_t *uuid, int pauses, uint64_t run_ns)
{
	for (int i = 0; i < DOMAINS; i++) {
		domain *d = &domains[i];
		if (d->there)
			continue;
		memset(d, 0, sizeof(*d));
		d->there = true;
		d->domid = next_domid++;
		memcpy(d->uuid, uuid, 16);
		snprintf(d->name, sizeof(d->name), "%s", name);
		d->pauses = pauses;
		d->run_ns = run_ns;
		d->since_ns = now_ns();
		return d;
	}
	return NULL;
}

static void describe(const domain *d, const char *kind)
{
	char path[64];
	snprintf(path, sizeof(path), "/libxl/%u/type", d->domid);
	tell(d->domid, "name", d->name);
	tell(d->domid, "control/shutdown", "");
	if (store)
		store(store_arg, path, kind);
}

EXPORT uint32_t fake_create(const char *name, const uint8_t *uuid, const char *kind)
{
	pthread_mutex_lock(&lock);
	domain copy = *add(name, uuid, 0, 0);
	pthread_mutex_unlock(&lock);
	describe(&copy, kind);
	return copy.domid;
}

EXPORT uint64_t fake_progress(uint32_t domid)
{
	pthread_mutex_lock(&lock);
	domain *d = find(domid);
	uint64_t ns = 0;
	if (d)
		ns = d->run_ns + (runs(d) ? now_ns() - d->since_ns : 0);
	pthread_mutex_unlock(&lock);
	return ns / 1000000;
}

EXPORT void fake_shut_down(uint32_t domid, int reason)
{
	pthread_mutex_lock(&lock);
	domain *d = find(domid);
	if (d) {
		stop_clock(d);
		d->shutdown = true;
		d->reason = reason;
	}
	pthread_mutex_unlock(&lock);
}

EXPORT int fake_pauses(uint32_t domid)
{
	pthread_mutex_lock(&lock);
	domain *d = find(domid);
	int pauses = d ? d->pauses : -1;
	pthread_mutex_unlock(&lock);
	return pauses;
}

EXPORT int fake_touched_zero(void) { return touched_zero; }
EXPORT int fake_contexts(void) { return contexts; }
EXPORT int fake_wrong_reaper(void) { return wrong_reaper; }

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

/* libxenlight */

EXPORT int libxl_ctx_alloc(void **made, int version, unsigned flags, void *log)
{
	(void)version;
	(void)flags;
	if (strikes("no context")) {
		fprintf(((logger *)log)->file, "xc: error: Could not obtain handle on privileged command interface\n");
		fflush(((logger *)log)->file);
		return FAIL;
	}
	ctx *c = calloc(1, sizeof(*c));
	c->log = log;
	contexts++;
	*made = c;
	return 0;
}

EXPORT int libxl_ctx_free(void *c)
{
	free(c);
	return 0;
}

struct hooks {
	int owner;
	void (*fork)(void);
	void (*reaped)(void);
};

EXPORT void libxl_childproc_setmode(void *c, const struct hooks *hooks, void *user)
{
	(void)user;
	((ctx *)c)->owner = hooks->owner;
}

EXPORT int libxl_ao_abort(void *given, const void *how)
{
	ctx *c = given;
	(void)how;
	pthread_mutex_lock(&lock);
	int rc = c->busy ? 0 : NOTFOUND;
	c->aborting = c->busy;
	pthread_mutex_unlock(&lock);
	return rc;
}

#define STRUCT(name, type)                                                                         \
	EXPORT void libxl_##name##_init(type *p) { memset(p, 0, sizeof(*p)); }                     \
	EXPORT void libxl_##name##_dispose(type *p) { memset(p, 0, sizeof(*p)); }

STRUCT(domain_restore_params, restore_params)

EXPORT void libxl_dominfo_init(dominfo *p) { memset(p, 0, sizeof(*p)); }

EXPORT void libxl_dominfo_dispose(dominfo *p)
{
	free(p->label);
	memset(p, 0, sizeof(*p));
}

EXPORT void libxl_domain_config_init(config *p) { memset(p, 0, sizeof(*p)); }

EXPORT void libxl_domain_config_dispose(config *p)
{
	free(p->name);
	memset(p, 0, sizeof(*p));
}

static const char *const reasons[] = { "poweroff", "reboot", "suspend", "crash" };

EXPORT char *libxl_dominfo_to_json(void *c, dominfo *p)
{
	char *text = NULL, identity[100] = "";
	const uint8_t *u = p->uuid;
	(void)c;
	/* What is as it is by default is left out: domain 0 has neither uuid nor number. */
	if (p->domid)
		snprintf(identity, sizeof(identity),
			 "\"uuid\": \"%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x\",\n"
			 "  \"domid\": %u,\n  ",
			 u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11],
			 u[12], u[13], u[14], u[15], p->domid);
	if (asprintf(&text, "{\n  %s\"ssid_label\": \"%s\"%s%s%s%s%s%s%s\n}\n", identity, p->label,
		     p->running ? ",\n  \"running\": true" : "",
		     p->paused ? ",\n  \"paused\": true" : "",
		     p->shutdown ? ",\n  \"shutdown\": true" : "",
		     p->dying ? ",\n  \"dying\": true" : "",
		     p->shutdown ? ",\n  \"shutdown_reason\": \"" : "",
		     p->shutdown ? reasons[p->reason] : "", p->shutdown ? "\"" : "") < 0)
		return NULL;
	return text;
}

static void fill(dominfo *info, const domain *d)
{
	memset(info, 0, sizeof(*info));
	memcpy(info->uuid, d->uuid, 16);
	info->domid = d->domid;
	info->running = runs(d);
	info->paused = d->pauses > 0;
	info->shutdown = d->shutdown;
	info->dying = d->dying;
	info->reason = d->reason;
	info->label = strdup("label");
}

EXPORT int libxl_domain_info(void *given, dominfo *info, uint32_t domid)
{
	ctx *c = given;
	if (c->owner != 3)
		wrong_reaper++;
	if (strikes("info hangs"))
		nap(60000);
	pthread_mutex_lock(&lock);
	domain zero = { .there = true }, *d = domid ? find(domid) : &zero;
	if (d)
		fill(info, d);
	pthread_mutex_unlock(&lock);
	return d ? 0 : DOMAIN_NOTFOUND;
}

EXPORT dominfo *libxl_list_domain(void *c, int *count)
{
	(void)c;
	dominfo *all = calloc(DOMAINS + 1, sizeof(*all));
	domain zero = { .there = true };
	fill(&all[0], &zero);
	*count = 1;
	pthread_mutex_lock(&lock);
	/* Not in order: nobody said that it is. */
	for (int i = DOMAINS - 1; i >= 0; i--)
		if (domains[i].there)
			fill(&all[(*count)++], &domains[i]);
	pthread_mutex_unlock(&lock);
	return all;
}

EXPORT void libxl_dominfo_list_free(dominfo *all, int count)
{
	for (int i = 0; i < count; i++)
		libxl_dominfo_dispose(&all[i]);
	free(all);
}

static char *value_of(const char *text, const char *key)
{
	const char *at = strstr(text, "\"c_info\"");
	at = at ? strstr(at, key) : NULL;
	at = at ? strchr(at + strlen(key), '"') : NULL;
	const char *stop = at ? strchr(at + 1, '"') : NULL;
	return stop ? strndup(at + 1, (size_t)(stop - at - 1)) : NULL;
}

EXPORT int libxl_domain_config_from_json(void *given, config *p, const char *text)
{
	ctx *c = given;
	p->name = value_of(text, "\"name\":");
	char *uuid = value_of(text, "\"uuid\":");
	if (!p->name || !uuid || strikes("config refused")) {
		report(c, "unable to generate libxl_domain_config from JSON representation.");
		free(uuid);
		return FAIL;
	}
	int at = 0;
	for (const char *u = uuid; *u && at < 16; u++) {
		if (*u == '-')
			continue;
		unsigned octet = 0;
		sscanf(u, "%2x", &octet);
		p->uuid[at++] = (uint8_t)octet;
		u++;
	}
	free(uuid);
	return 0;
}

EXPORT int libxl_domain_restore_params_from_json(void *c, restore_params *p, const char *text)
{
	(void)c;
	return sscanf(text, "{\"stream_version\": %d}", &p->version) == 1 && p->version == 2 ? 0 : FAIL;
}

/* Suspending */

struct late {
	uint32_t domid;
	int ms;
};

static void *suspend_late(void *given)
{
	struct late *late = given;
	nap(late->ms);
	fake_shut_down(late->domid, SUSPEND);
	free(late);
	return NULL;
}

static int ask_guest(ctx *c, uint32_t domid)
{
	tell(domid, "control/shutdown", "suspend");
	if (strikes("guest crashes")) {
		tell(domid, "control/shutdown", "");
		fake_shut_down(domid, CRASH);
		report(c, "guest crashed");
		return FAIL;
	}
	if (strikes("guest sees it late")) {
		struct late *late = calloc(1, sizeof(*late));
		pthread_t thread;
		late->domid = domid;
		late->ms = 700;
		tell(domid, "control/shutdown", "");
		while (!is_aborting(c))
			nap(5);
		pthread_create(&thread, NULL, suspend_late, late);
		pthread_detach(thread);
		return ABORTED;
	}
	if (strikes("guest ignores")) {
		for (int i = 0; i < 60; i++) {
			if (is_aborting(c))
				return ABORTED; /* and the request stays */
			nap(5);
		}
		tell(domid, "control/shutdown", "");
		report(c, "guest didn't acknowledge suspend, request cancelled");
		return GUEST_TIMEDOUT;
	}
	tell(domid, "control/shutdown", "");
	fake_shut_down(domid, SUSPEND);
	return 0;
}

static int put(ctx *c, int fd, const void *octets, size_t length)
{
	const char *at = octets;
	while (length) {
		if (is_aborting(c))
			return ABORTED;
		struct pollfd p = { fd, POLLOUT, 0 };
		if (poll(&p, 1, 5) <= 0)
			continue;
		ssize_t wrote = write(fd, at, length < 4096 ? length : 4096);
		if (wrote < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (wrote < 0) {
			report(c, "failed to write stream: %s", strerror(errno));
			return FAIL;
		}
		at += wrote;
		length -= (size_t)wrote;
	}
	return 0;
}

/* Up to the payload: libxl's header, LIBXC_CONTEXT, headers of the image and of the domain, STATIC_DATA_END, a page without
 * content, and the header of an optional record that nobody knows. The payload begins with the time that the domain has run. */
static const unsigned char prologue[88] = {
	1, 0, 0, 0, 0, 0, 0, 0,
	0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 'X', 'E', 'N', 'F', 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0,
	2, 0, 0, 0, 12, 0, 0, 0, 4, 0, 0, 0, 17, 0, 0, 0,
	16, 0, 0, 0, 0, 0, 0, 0,
	1, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xf0,
	0xff, 0, 0, 0x80, 8, 0, PAYLOAD >> 16, 0,
};
/* END of the image, and END of the stream. */
static const char last[16];

static const char header[16] = { 'L', 'i', 'b', 'x', 'l', 'F', 'm', 't', 0, 0, 0, 2, 0, 0, 0, 0 };

static int stream(ctx *c, uint32_t domid, int fd)
{
	static const char payload[PAYLOAD] = { 1 };
	uint64_t run_ns = 0;
	pthread_mutex_lock(&lock);
	domain *d = find(domid);
	if (d)
		run_ns = d->run_ns;
	pthread_mutex_unlock(&lock);
	if (strikes("helper dies")) {
		report(c, "domain 1: save helper [123] died due to fatal signal Killed");
		return FAIL;
	}
	/* As libxl does meanwhile. */
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	int rc = put(c, fd, header, sizeof(header));
	if (rc == FAIL)
		abort(); /* libxl calls its helper's callback, which is not set yet. */
	rc = rc ? rc : put(c, fd, prologue, sizeof(prologue));
	rc = rc ? rc : put(c, fd, &run_ns, sizeof(run_ns));
	rc = rc ? rc : put(c, fd, payload, sizeof(payload));
	rc = rc ? rc : put(c, fd, last, sizeof(last));
	return rc;
}

EXPORT int libxl_domain_suspend(void *given, uint32_t domid, int fd, int flags, const void *how)
{
	ctx *c = given;
	(void)how;
	touched_zero += !domid;
	begin(c);
	if (strikes("hangs for good"))
		nap(60000);
	if (strikes("rc 0 while running"))
		return end(c, 0);
	if ((flags & 2) && strikes("no live")) {
		report(c, "Failed to enable logdirty 95,22");
		return end(c, GUEST_TIMEDOUT);
	}
	int rc = ask_guest(c, domid);
	rc = rc ? rc : stream(c, domid, fd);
	return end(c, rc);
}

EXPORT int libxl_domain_suspend_only(void *given, uint32_t domid, const void *how)
{
	ctx *c = given;
	(void)how;
	touched_zero += !domid;
	begin(c);
	int rc = ask_guest(c, domid);
	/* The number is lost on the way. */
	return end(c, rc == GUEST_TIMEDOUT ? 0 : rc);
}

EXPORT int libxl_domain_resume(void *given, uint32_t domid, int cancel, const void *how)
{
	ctx *c = given;
	(void)how;
	touched_zero += !domid;
	begin(c);
	if (cancel != 1 || strikes("resume fails"))
		return end(c, FAIL);
	if (strikes("resume lies"))
		return end(c, 0);
	pthread_mutex_lock(&lock);
	domain *d = find(domid);
	if (d && d->shutdown) {
		d->shutdown = false;
		start_clock(d);
	}
	pthread_mutex_unlock(&lock);
	return end(c, d ? 0 : FAIL);
}

static int change_pauses(uint32_t domid, int by)
{
	pthread_mutex_lock(&lock);
	domain *d = find(domid);
	touched_zero += !domid;
	if (d) {
		stop_clock(d);
		d->pauses = d->pauses + by < 0 ? 0 : d->pauses + by;
		start_clock(d);
	}
	pthread_mutex_unlock(&lock);
	return d ? 0 : FAIL;
}

EXPORT int libxl_domain_pause(void *c, uint32_t domid, const void *how)
{
	(void)c;
	(void)how;
	return strikes("pause lies") ? 0 : change_pauses(domid, 1);
}

EXPORT int libxl_domain_unpause(void *c, uint32_t domid, const void *how)
{
	(void)c;
	(void)how;
	return change_pauses(domid, -1);
}

static void remove_domain(uint32_t domid)
{
	char path[64];
	pthread_mutex_lock(&lock);
	domain *d = find(domid);
	if (d)
		d->there = false;
	pthread_mutex_unlock(&lock);
	snprintf(path, sizeof(path), "/libxl/%u", domid);
	tell(domid, "", NULL);
	if (store)
		store(store_arg, path, NULL);
}

static void *remove_late(void *given)
{
	struct late *late = given;
	nap(late->ms);
	remove_domain(late->domid);
	free(late);
	return NULL;
}

EXPORT int libxl_domain_destroy(void *c, uint32_t domid, const void *how)
{
	(void)c;
	(void)how;
	if (!domid)
		touched_zero++;
	if (strikes("destroy fails"))
		return FAIL;
	if (strikes("dies slowly")) {
		struct late *late = calloc(1, sizeof(*late));
		pthread_t thread;
		late->domid = domid;
		late->ms = 400;
		pthread_mutex_lock(&lock);
		domain *d = find(domid);
		if (d)
			d->dying = true;
		pthread_mutex_unlock(&lock);
		pthread_create(&thread, NULL, remove_late, late);
		pthread_detach(thread);
		return 0;
	}
	remove_domain(domid);
	return 0;
}

EXPORT int libxl_domain_rename(void *c, uint32_t domid, const char *old, const char *name)
{
	(void)c;
	(void)old;
	touched_zero += !domid;
	if (strikes("rename lies"))
		return 0;
	pthread_mutex_lock(&lock);
	domain *d = find(domid);
	if (d)
		snprintf(d->name, sizeof(d->name), "%s", name);
	pthread_mutex_unlock(&lock);
	if (d)
		tell(domid, "name", name);
	return d ? 0 : FAIL;
}

static int get(ctx *c, int fd, void *octets, size_t length)
{
	char *at = octets;
	while (length) {
		if (is_aborting(c))
			return FAIL; /* as the real one: not that it was aborted */
		struct pollfd p = { fd, POLLIN, 0 };
		if (poll(&p, 1, 5) <= 0)
			continue;
		ssize_t got = read(fd, at, length);
		if (got <= 0) {
			report(c, "stream: unexpected end");
			return FAIL;
		}
		at += got;
		length -= (size_t)got;
	}
	return 0;
}

EXPORT int libxl_domain_create_restore(void *given, config *wanted, uint32_t *domid, int fd, int back,
				       const restore_params *params, const void *how, const void *console)
{
	static __thread char payload[PAYLOAD];
	ctx *c = given;
	char head[16], before[sizeof(prologue)];
	uint64_t run_ns = 0;
	(void)how;
	(void)console;
	if (back != -1 || params->version != 2)
		return FAIL;
	begin(c);
	pthread_mutex_lock(&lock);
	bool taken = false;
	for (int i = 0; i < DOMAINS; i++)
		taken |= domains[i].there && !strcmp(domains[i].name, wanted->name);
	domain copy = taken ? (domain){ 0 } : *add(wanted->name, wanted->uuid, 1, 0);
	pthread_mutex_unlock(&lock);
	*domid = copy.domid;
	if (taken)
		return end(c, FAIL);
	describe(&copy, "pvh");
	int rc = get(c, fd, head, sizeof(head));
	if (!rc && memcmp(head, header, sizeof(header))) {
		report(c, "stream: invalid ident");
		rc = FAIL;
	}
	rc = rc ? rc : get(c, fd, before, sizeof(before));
	rc = rc ? rc : get(c, fd, &run_ns, sizeof(run_ns));
	rc = rc ? rc : get(c, fd, payload, sizeof(payload));
	if (!rc)
		get(c, fd, head, sizeof(last)); /* What is not there is zero, and END is all zeros. */
	if (!rc && strikes("built and failed"))
		return end(c, FAIL); /* and leaves it */
	if (rc) {
		remove_domain(copy.domid);
		return end(c, rc);
	}
	pthread_mutex_lock(&lock);
	domain *d = find(copy.domid);
	if (d)
		d->run_ns = run_ns;
	pthread_mutex_unlock(&lock);
	return end(c, 0);
}
