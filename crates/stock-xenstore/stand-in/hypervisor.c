// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A hypervisor for Xenstore daemons that have none: preloaded (LD_PRELOAD), it answers the calls by which the stock
// daemons of Xen 4.17 reach Xen, so that they start and serve their socket on any Linux machine.
//
// What they are told: every domain asked about exists and runs; every event channel can be bound and never fires; every
// grant and foreign frame maps to fresh zeroed memory that nobody else sees; resource limits can be raised.
//
// With GUESTS_VARIABLE in the environment, guests can be played: it names a directory in which the ring page of a domain
// is the file ring-DOMID where there is one, an event for the daemon is its port as a uint32_t in the FIFO events, and
// the daemon's notification of a port is an octet in the FIFO notified-PORT. Local ports are equal to remote ones.
// A symbol without a version, as here, stands in for any version of it.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum { PAGE = 4096 };

static void *zeroed_memory(size_t length)
{
    void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

// ---- guests that the caller plays ----

#define GUESTS_VARIABLE "STOCK_XENSTORE_GUESTS"

// The path of one of the files, in `path`; NULL if no guests are played.
static const char *guests_file(char path[PAGE], const char *name, uint32_t number)
{
    const char *directory = getenv(GUESTS_VARIABLE);
    if (!directory)
        return NULL;
    snprintf(path, PAGE, "%s/%s%.0u", directory, name, number);
    return path;
}

static void *ring_page(uint32_t domid)
{
    char path[PAGE];
    int fd = guests_file(path, "ring-", domid) ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return zeroed_memory(PAGE);
    void *memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return memory == MAP_FAILED ? NULL : memory;
}

// ---- libxenctrl ----

static int xc_handle; // its address is the handle; nothing is read through it

EXPORT void *xc_interface_open(void *logger, void *dombuild_logger, unsigned flags)
{
    (void)logger, (void)dombuild_logger, (void)flags;
    return &xc_handle;
}

EXPORT int xc_interface_close(void *xch)
{
    (void)xch;
    return 0;
}

// The reply to xc_domain_getinfo, and to xc_domain_getinfolist: different layouts of one size in 4.17, of which the
// daemons look at these fields only.
enum { DOMAIN_INFO_SIZE = 112, RUNNING = 1u << 5 };

struct domain_info {
    uint32_t domid;
    uint32_t ssidref;
    uint32_t flags;
    unsigned char rest[DOMAIN_INFO_SIZE - 12];
};

struct domain_info_list_entry {
    uint16_t domid;
    uint16_t pad;
    uint32_t flags;
    unsigned char rest[DOMAIN_INFO_SIZE - 8];
};

_Static_assert(sizeof(struct domain_info) == DOMAIN_INFO_SIZE, "layout of 4.17");
_Static_assert(sizeof(struct domain_info_list_entry) == DOMAIN_INFO_SIZE, "layout of 4.17");

EXPORT int xc_domain_getinfo(void *xch, uint32_t first_domid, unsigned max_doms, struct domain_info *info)
{
    (void)xch;
    if (max_doms == 0)
        return 0;
    memset(info, 0, sizeof *info);
    info->domid = first_domid;
    info->flags = RUNNING;
    return 1;
}

EXPORT int xc_domain_getinfolist(void *xch, uint32_t first_domid, unsigned max_doms,
                                 struct domain_info_list_entry *info)
{
    (void)xch;
    if (max_doms == 0)
        return 0;
    memset(info, 0, sizeof *info);
    info->domid = (uint16_t)first_domid;
    info->flags = RUNNING;
    return 1;
}

EXPORT void *xc_map_foreign_range(void *xch, uint32_t domid, int size, int protection, unsigned long frame)
{
    (void)xch, (void)domid, (void)protection, (void)frame;
    return zeroed_memory(size > 0 ? (size_t)size : PAGE);
}

// ---- libxenevtchn ----

struct event_channels {
    int fd;
    int next_port;
};

enum { KEEP_ACROSS_EXEC = 1u << 0 }; // the one flag of xenevtchn_open

static struct event_channels *event_channels_on(int fd)
{
    struct event_channels *channels = fd < 0 ? NULL : malloc(sizeof *channels);
    if (channels) {
        channels->fd = fd;
        channels->next_port = 1;
    }
    return channels;
}

EXPORT struct event_channels *xenevtchn_open(void *logger, unsigned flags)
{
    (void)logger;
    char path[PAGE];
    if (guests_file(path, "events", 0))
        return event_channels_on(open(path, O_RDWR | O_NONBLOCK | (flags & KEEP_ACROSS_EXEC ? 0 : O_CLOEXEC)));
    return event_channels_on(eventfd(0, EFD_NONBLOCK | (flags & KEEP_ACROSS_EXEC ? 0 : EFD_CLOEXEC)));
}

EXPORT struct event_channels *xenevtchn_fdopen(void *logger, int fd, unsigned flags)
{
    (void)logger, (void)flags;
    return event_channels_on(fd);
}

EXPORT int xenevtchn_close(struct event_channels *channels)
{
    if (channels) {
        close(channels->fd);
        free(channels);
    }
    return 0;
}

EXPORT int xenevtchn_fd(struct event_channels *channels)
{
    return channels->fd;
}

EXPORT int xenevtchn_bind_interdomain(struct event_channels *channels, uint32_t domid, uint32_t remote_port)
{
    (void)domid;
    return getenv(GUESTS_VARIABLE) ? (int)remote_port : channels->next_port++;
}

EXPORT int xenevtchn_bind_virq(struct event_channels *channels, unsigned virq)
{
    (void)virq;
    return channels->next_port++;
}

EXPORT int xenevtchn_unbind(struct event_channels *channels, uint32_t port)
{
    (void)channels, (void)port;
    return 0;
}

EXPORT int xenevtchn_unmask(struct event_channels *channels, uint32_t port)
{
    (void)channels, (void)port;
    return 0;
}

EXPORT int xenevtchn_notify(struct event_channels *channels, uint32_t port)
{
    (void)channels;
    char path[PAGE];
    int fd = guests_file(path, "notified-", port) ? open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC) : -1;
    if (fd >= 0) {
        // A FIFO that is full has woken its reader already.
        if (write(fd, "", 1) < 0 && errno != EAGAIN)
            perror(path);
        close(fd);
    }
    return 0;
}

EXPORT int xenevtchn_pending(struct event_channels *channels)
{
    uint32_t port;
    if (getenv(GUESTS_VARIABLE) && read(channels->fd, &port, sizeof port) == sizeof port)
        return (int)port;
    errno = EAGAIN;
    return -1;
}

// ---- libxengnttab ----

static int gnttab_handle; // its address is the handle

EXPORT void *xengnttab_open(void *logger, unsigned flags)
{
    (void)logger, (void)flags;
    return &gnttab_handle;
}

EXPORT int xengnttab_close(void *gnttab)
{
    (void)gnttab;
    return 0;
}

EXPORT int xengnttab_set_max_grants(void *gnttab, uint32_t count)
{
    (void)gnttab, (void)count;
    return 0;
}

EXPORT void *xengnttab_map_grant_ref(void *gnttab, uint32_t domid, uint32_t reference, int protection)
{
    (void)gnttab, (void)reference, (void)protection;
    return ring_page(domid);
}

EXPORT int xengnttab_unmap(void *gnttab, void *start, uint32_t count)
{
    (void)gnttab;
    return munmap(start, (size_t)count * PAGE);
}

// ---- the two files in which dom0's kernel tells its own ring ----

static int ends_with(const char *path, const char *end)
{
    size_t path_length = strlen(path), end_length = strlen(end);
    return path_length >= end_length && strcmp(path + path_length - end_length, end) == 0;
}

static int memory_file(const char *name, int flags, const char *content, size_t length)
{
    int fd = memfd_create(name, flags & O_CLOEXEC ? MFD_CLOEXEC : 0);
    if (fd < 0)
        return -1;
    if (content ? pwrite(fd, content, length, 0) != (ssize_t)length : ftruncate(fd, (off_t)length) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

typedef int open_function(const char *path, int flags, ...);

static int open_through(const char *real, const char *path, int flags, mode_t mode)
{
    if (ends_with(path, "/xsd_port"))
        return memory_file("xsd_port", flags, "5", 1);
    if (ends_with(path, "/xsd_kva"))
        return memory_file("xsd_kva", flags, NULL, PAGE);
    open_function *next = (open_function *)dlsym(RTLD_NEXT, real);
    if (!next) {
        errno = ENOSYS;
        return -1;
    }
    return next(path, flags, mode);
}

static mode_t mode_argument(int flags, va_list arguments)
{
    return flags & (O_CREAT | __O_TMPFILE) ? (mode_t)va_arg(arguments, unsigned) : 0;
}

EXPORT int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_argument(flags, arguments);
    va_end(arguments);
    return open_through("open", path, flags, mode);
}

EXPORT int open64(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_argument(flags, arguments);
    va_end(arguments);
    return open_through("open64", path, flags, mode);
}

// ---- the system's log ----
// Why the C daemon gives up goes there only. A test wants to quote it: to standard error, which it keeps.

static void log_line(const char *format, va_list arguments)
{
    size_t length = strlen(format);
    vfprintf(stderr, format, arguments);
    if (length == 0 || format[length - 1] != '\n')
        fputc('\n', stderr);
}

EXPORT void vsyslog(int priority, const char *format, va_list arguments)
{
    (void)priority;
    log_line(format, arguments);
}

EXPORT void syslog(int priority, const char *format, ...)
{
    va_list arguments;
    (void)priority;
    va_start(arguments, format);
    log_line(format, arguments);
    va_end(arguments);
}

EXPORT void __syslog_chk(int priority, int flag, const char *format, ...)
{
    va_list arguments;
    (void)priority, (void)flag;
    va_start(arguments, format);
    log_line(format, arguments);
    va_end(arguments);
}

// ---- limits that oxenstored raises as root ----

EXPORT int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
    (void)resource, (void)limit;
    return 0;
}

EXPORT int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *limit)
{
    (void)resource, (void)limit;
    return 0;
}
