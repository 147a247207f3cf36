/* libdomkeep: configuration and snapshots of Xen domains. MIT OR Apache-2.0.
 *
 * Made by `cargo xtask header` from crates/domkeep-capi; do not edit. What holds for all functions is in docs/c-api.md:
 *
 *  - Functions return DK_STATUS_OK, which is 0, or a negative dk_status. The last parameter, which may be NULL, becomes an error that
 *    the caller frees with dk_error_free(), or NULL.
 *  - Texts are UTF-8 and end with a NUL. Texts and arrays that are given out belong to the caller, who frees them with free(). Places for
 *    them are set to NULL before anything else is done, so that they can be freed whatever the call returns.
 *  - Pointers are only used during the call, unless a function says otherwise. Descriptors stay the caller's.
 *  - All functions may be called from any thread, and at the same time, but for two calls on one dk_hotplug, and freeing what another
 *    call uses. SIGPIPE is never sent for what this library writes.
 */

#ifndef DOMKEEP_H
#define DOMKEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// How long a call may take unless dk_ctx_set_timeout() says otherwise, in milliseconds.
#define DK_TIMEOUT_DEFAULT_MS 30000

// What a call returns: 0, or a negative number that says in which way it failed.
typedef enum {
  // Done.
  DK_STATUS_OK = 0,
  // A pointer that must not be NULL is, or a value has no meaning. Nothing was done.
  DK_STATUS_INVALID_ARGUMENT = -1,
  // A text, stream or file is not what it should be. Nothing was done.
  DK_STATUS_INVALID_DATA = -2,
  // There is no such domain, template, device or node.
  DK_STATUS_NOT_FOUND = -3,
  // There is one already.
  DK_STATUS_EXISTS = -4,
  // It was looked at and is not possible. Where there can be several reasons dk_error_details() has all. Nothing was done.
  DK_STATUS_REFUSED = -5,
  // Somebody else holds it, or has changed it meanwhile.
  DK_STATUS_BUSY = -6,
  // It took too long.
  DK_STATUS_TIMED_OUT = -7,
  // It was cancelled.
  DK_STATUS_CANCELLED = -8,
  // Xenstore, the template store, the hypervisor or a library cannot be reached.
  DK_STATUS_UNREACHABLE = -9,
  // A file or descriptor could not be read or written.
  DK_STATUS_IO = -10,
  // What is there is not what was saved; dk_error_details() has every difference.
  DK_STATUS_DIFFERENT = -11,
  // Anything else. What may be left of it is in dk_error_details().
  DK_STATUS_FAILED = -12,
  // For callbacks: this cannot be done here, as streaming the memory of a running domain.
  DK_STATUS_UNSUPPORTED = -13,
  // A fault of this library. What the call worked with must not be used again, but for freeing it.
  DK_STATUS_INTERNAL = -99,
} dk_status;

// How a configuration is laid out.
typedef enum {
  // As libxl with yajl prints it: every libxl up to 4.20.
  DK_LAYOUT_YAJL = 0,
  // As libxl with json-c prints it.
  DK_LAYOUT_JSON_C = 1,
} dk_layout;

// Which view decides, where template and Xenstore say differently.
typedef enum {
  // Xenstore. A device that is in the template only is left out in the classes that libxl compares, and kept in the others.
  DK_POLICY_LIVE = 0,
  // Both: every device that either knows.
  DK_POLICY_UNION = 1,
  // The template alone. The report still says what Xenstore has otherwise.
  DK_POLICY_TEMPLATE = 2,
} dk_policy;

// Whether the hypervisor is asked, through libxenctrl, for what neither Xenstore nor templates tell truly: uuids and the
// parameters of the scheduler.
typedef enum {
  // If this is a Xen host and the context was opened without naming a Xenstore.
  DK_HYPERVISOR_AUTO = 0,
  // Never.
  DK_HYPERVISOR_NEVER = 1,
  // Always: it is an error if it cannot be asked.
  DK_HYPERVISOR_ALWAYS = 2,
} dk_hypervisor;

// What kind of device.
typedef enum {
  // A disk.
  DK_DEVICE_CLASS_DISK = 0,
  // A network card.
  DK_DEVICE_CLASS_NIC = 1,
  // A 9pfs share.
  DK_DEVICE_CLASS_P9 = 2,
} dk_device_class;

// Kind of guest.
typedef enum {
  // Paravirtual.
  DK_DOMAIN_KIND_PV = 0,
  // Paravirtual in hardware assisted containers.
  DK_DOMAIN_KIND_PVH = 1,
  // Fully virtual.
  DK_DOMAIN_KIND_HVM = 2,
} dk_domain_kind;

// What a domain does.
typedef enum {
  // It runs, or waits for something to do.
  DK_DOMAIN_STATE_RUNNING = 0,
  // The toolstack has stopped it between two instructions.
  DK_DOMAIN_STATE_PAUSED = 1,
  // It has shut down for the reason "suspend", and can be resumed.
  DK_DOMAIN_STATE_SUSPENDED = 2,
  // It has shut down for another reason.
  DK_DOMAIN_STATE_SHUT_DOWN = 3,
  // It is being destroyed.
  DK_DOMAIN_STATE_DYING = 4,
} dk_domain_state;

// How thoroughly what was saved is compared with what is there.
typedef enum {
  // Headers: of the memory image, and of each frozen image.
  DK_DEPTH_HEADER = 0,
  // Headers of every image in every chain.
  DK_DEPTH_CHAIN = 1,
  // Every octet that there is a digest of.
  DK_DEPTH_FULL = 2,
} dk_depth;

// How much is logged.
typedef enum {
  // What went wrong.
  DK_LOG_LEVEL_ERROR = 0,
  // And what may be.
  DK_LOG_LEVEL_WARN = 1,
  // And what was done.
  DK_LOG_LEVEL_INFO = 2,
  // And how.
  DK_LOG_LEVEL_DEBUG = 3,
  // And everything else.
  DK_LOG_LEVEL_TRACE = 4,
} dk_log_level;

// Ends calls early: those that it is given to, from whatever thread. Once cancelled it stays so.
typedef struct dk_cancel dk_cancel;

// What is asked to suspend, build, pause and destroy domains. It may be used by several threads at the same time.
typedef struct dk_control dk_control;

// A host. Calls on one context may be made by several threads at the same time; each has a connection of its own to Xenstore.
typedef struct dk_ctx dk_ctx;

// Why a call failed. It belongs to the caller, who frees it with dk_error_free(). It may be read by any thread.
typedef struct dk_error dk_error;

// A domain's template whose lock is held and which is about to change. It is used by one thread at a time.
typedef struct dk_hotplug dk_hotplug;

// A domain as it is when it is asked for.
typedef struct {
  // Its id.
  uint32_t domid;
  // Its uuid, in the order in which it is printed.
  uint8_t uuid[16];
  // Its name, which ends with a NUL; empty if it has none.
  char name[256];
  // A dk_domain_kind.
  int kind;
  // A dk_domain_state.
  int state;
  // Why it has shut down, if it has: a SHUTDOWN_ number of Xen's public header sched.h.
  int shutdown_reason;
  // Whether it has been paused, which a suspended domain can be at the same time.
  bool paused;
} dk_domain;

// What a callback is told besides, and how it says why it failed.
typedef struct {
  // How long it may take, in milliseconds. What is not done by then is to be stopped: DK_STATUS_TIMED_OUT.
  uint64_t left_ms;
  // A descriptor that is readable once the call is cancelled: DK_STATUS_CANCELLED. -1 if it cannot be.
  int cancel_fd;
  // The same for calls of this library, as dk_control_suspend(). NULL if it cannot be cancelled.
  const dk_cancel *cancel;
  // For a callback that returns DK_STATUS_IO: the errno; 0 if there is none.
  int errnum;
  // Where a callback that fails says why, as a text that ends with a NUL.
  char *message;
  // How many octets there are for that.
  size_t message_size;
} dk_call;

// A caller's own hypervisor, as libxl with the caller's context. Each callback returns DK_STATUS_OK or another dk_status; `user` is
// what dk_control_new() was given.
//
// They may be called by several threads at the same time. They must return, without a longjmp or an exception. They need not check
// what they have done: it is looked at afterwards, with `find`. Nor need they check whether it is still the same domain: it is
// looked at before, and the control domain is never passed.
typedef struct {
  // sizeof(dk_control_ops), so that later versions can have more.
  size_t size;
  // Describes a domain. DK_STATUS_NOT_FOUND: there is none.
  int (*find)(void *user, uint32_t domid, dk_domain *domain, dk_call *call);
  // Describes all domains, by calling `tell` with `teller` and each of them.
  int (*list)(void *user, void (*tell)(void *teller, const dk_domain *domain), void *teller, dk_call *call);
  // Suspends a running domain, writes its memory to `fd` as a libxl stream, and leaves it suspended. With `fd` -1 only suspends it.
  // `live`: streams its memory while it runs; DK_STATUS_UNSUPPORTED if that cannot be done. DK_STATUS_REFUSED: the guest did not
  // acknowledge, and the request was withdrawn. DK_STATUS_IO: the stream could not be written.
  int (*suspend)(void *user, uint32_t domid, int fd, bool live, dk_call *call);
  // Lets a suspended domain go on where it was. DK_STATUS_BUSY: its memory is still being streamed.
  int (*resume)(void *user, uint32_t domid, dk_call *call);
  // Builds a domain from a configuration, as JSON, and the stream that `fd` is read from; leaves it paused, and says which it is.
  // DK_STATUS_EXISTS: its name is taken. DK_STATUS_INVALID_DATA: the stream is none. DK_STATUS_INVALID_ARGUMENT: the configuration
  // cannot be built. DK_STATUS_IO: the stream could not be read.
  int (*build)(void *user, const char *configuration, int fd, uint32_t *domid, dk_call *call);
  // Stops a domain between two instructions.
  int (*pause)(void *user, uint32_t domid, dk_call *call);
  // Lets a paused domain run.
  int (*unpause)(void *user, uint32_t domid, dk_call *call);
  // Destroys a domain, in whatever state it is.
  int (*destroy)(void *user, uint32_t domid, dk_call *call);
  // Gives a domain another name. DK_STATUS_EXISTS: it is taken.
  int (*rename)(void *user, uint32_t domid, const char *name, dk_call *call);
  // Waits until nothing is under way any more that a saver, perhaps a dead one, has begun with the domain. NULL if nothing of a
  // call outlives its process.
  int (*settle)(void *user, uint32_t domid, dk_call *call);
  // By which of its own ways `domkeep guard` reaches the same domains: "libxl" or "simulated". NULL if it cannot.
  const char *guardian_control;
  // What it needs for that: the socket of a simulated host. NULL if nothing.
  const char *guardian_address;
  // Called with `user` when the control is freed. May be NULL.
  void (*free)(void *user);
} dk_control_ops;

// How a device is plugged. Zeroes are the defaults, and so is NULL in place of all of it.
typedef struct {
  // sizeof(dk_plugging), so that later versions can have more.
  size_t size;
  // How long both ends may take to connect, or to let go, in milliseconds; 0 for 10 seconds, as libxl.
  uint32_t wait_ms;
  // How long a hotplug script may take, in milliseconds; 0 for 40 seconds, as libxl.
  uint32_t script_ms;
  // Where scripts are that are given without a path; NULL for /etc/xen/scripts.
  const char *scripts;
  // Takes devices away from guests that do not let them go.
  bool force;
} dk_plugging;

// A disk and the image that it is on by now.
typedef struct {
  // The disk: "xvda", "d0p0", "51712".
  const char *vdev;
  // The image's absolute path, as the domain with the backend sees it.
  const char *path;
  // The image's format, as in a configuration: "raw", "qcow", "qcow2", "vhd", "qed".
  const char *format;
} dk_image;

// How far a call is.
typedef struct {
  // What it does: "plan", "verify", "prepare", "freeze", "suspend", "memory", "capture", "sync", "name", "pivot", "configure",
  // "after", "digest", "build", "apply", "replace", "start", "roll back". Valid during the callback.
  const char *phase;
  // Octets of this phase that are done.
  uint64_t done;
  // Octets that this phase will have, as far as it is known; -1 if it is not.
  int64_t total;
  // How long this phase will still take, in milliseconds; -1 if it is not known.
  int64_t left_ms;
} dk_progress;

// Who watches a call, and may end it. Zeroes are nobody, and so is NULL in place of all of it.
typedef struct {
  // sizeof(dk_observer), so that later versions can have more.
  size_t size;
  // Told of progress, in the thread that made the call, between two pieces of work: while the guest is suspended it waits for
  // this as well. Returns false to cancel this call, and no other that has the same `cancel`. May be NULL.
  bool (*progress)(void *user, const dk_progress *progress);
  // What `progress` is given.
  void *user;
  // Cancels the call from another thread. May be NULL. It must not be freed before the call has returned.
  const dk_cancel *cancel;
} dk_observer;

// A change of one node.
typedef struct {
  // Its absolute path.
  const char *path;
  // The value that it is to have, `length` octets; NULL to remove it with all below.
  const uint8_t *value;
  // How many.
  size_t length;
} dk_node;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Reads a configuration as libxl would, and says what is odd about it.
//
// `*findings` becomes a JSON array of objects with "path", "severity" ("note", "warning" or "error"), "message" and "position"
// ("offset", "line", "column"), in the order of the text: empty if libxl reads the text as it says. It is freed with free().
//
// The call succeeds whatever is found. It fails with DK_STATUS_INVALID_DATA for what is no JSON at all, or beyond the limits.
//
// Pointers: `json` ends with a NUL. `findings` can be written; `error` is NULL or can be written.
dk_status dk_config_check(const char *json,
                          char **findings,
                          dk_error **error);

// Reads a configuration as libxl would or more leniently, and prints it as libxl does. Keys that libxl does not know stay.
//
// `layout` is one of DK_LAYOUT_YAJL and DK_LAYOUT_JSON_C. `*printed` is freed with free().
//
// Pointers: `json` ends with a NUL. `printed` can be written; `error` is NULL or can be written.
dk_status dk_config_print(const char *json,
                          int32_t layout,
                          char **printed,
                          dk_error **error);

// What is different between two configurations, by meaning: what one text leaves out and the other says to be the default is the
// same.
//
// `*differences` becomes a JSON array of objects with "path", "before" and "after", null where there is none. It is freed with
// free().
//
// Pointers: Both texts end with a NUL. `differences` can be written; `error` is NULL or can be written.
dk_status dk_config_diff(const char *before,
                         const char *after,
                         char **differences,
                         dk_error **error);

// Opens a context for the Xenstore of a host.
//
// `xenstore` is the path of xenstored's socket or of a xenbus device, or NULL to look where libxenstore looks: XENSTORED_PATH,
// XENSTORED_RUNDIR/socket, /run/xenstored/socket, /dev/xen/xenbus.
//
// `templates` says where the domains' templates are: "userdata:DIRECTORY" for libxl's own, "sled:DIRECTORY" for Domkeep's
// embedded store, "memory" for none that outlive the context. NULL is "userdata:/var/lib/xen".
//
// Connects at once, so that a missing daemon is noticed here: DK_STATUS_UNREACHABLE.
//
// `*ctx` is NULL unless the call succeeds. It is freed with dk_ctx_free().
//
// Pointers: Texts end with a NUL. `ctx` can be written; `error` is NULL or can be written.
dk_status dk_ctx_open(dk_ctx **ctx,
                      const char *xenstore,
                      const char *templates,
                      dk_error **error);

// Opens a context with a Xenstore of its own, inside this process: for tests, and for trying a toolstack out without Xen.
//
// `contents` are the nodes it begins with, as `xenstore-ls -fp` prints them, one a line; NULL for an empty store.
// `templates` is as for dk_ctx_open(), but NULL is "memory".
//
// `*ctx` is NULL unless the call succeeds. It is freed with dk_ctx_free(), and the store with it.
//
// Pointers: As dk_ctx_open().
dk_status dk_ctx_open_in_process(dk_ctx **ctx,
                                 const char *contents,
                                 const char *templates,
                                 dk_error **error);

// Serves the context's own Xenstore on a Unix socket as well, for libxenstore and the stock tools, until the context is freed.
//
// The socket can be reached by this user only. One that a dead server left there is replaced.
//
// Pointers: `socket` ends with a NUL. `error` is NULL or can be written.
dk_status dk_ctx_serve(const dk_ctx *ctx,
                       const char *socket,
                       dk_error **error);

// How long a step of a call on this context may wait for Xenstore, or for a lock, in milliseconds. A call of several steps may take
// several times that; devices, by their dk_plugging, and snapshots, by their requests, have times of their own beside it. With 0
// nothing is waited for, so that whatever asks Xenstore fails.
void dk_ctx_set_timeout(const dk_ctx *ctx,
                        uint32_t milliseconds);

// Whether the hypervisor is asked for what only it knows. One of DK_HYPERVISOR_AUTO, DK_HYPERVISOR_NEVER, DK_HYPERVISOR_ALWAYS.
dk_status dk_ctx_set_hypervisor(const dk_ctx *ctx,
                                int32_t hypervisor,
                                dk_error **error);

// Which program resumes a domain if this process dies while it has the domain suspended: `domkeep guard`, or one of the caller's.
//
// `argv` are the program and its arguments, `count` of them; none for no guardian, which is also how a context begins. Without
// one a killed saver leaves its guest suspended, for dk_snapshot_recover() to resume.
//
// Pointers: `argv` has `count` texts that end with a NUL. `error` is NULL or can be written.
dk_status dk_ctx_set_guardian(const dk_ctx *ctx,
                              const char *const *argv,
                              size_t count,
                              dk_error **error);

// Frees a context: its connections are closed, its own Xenstore ends. NULL is nothing to free.
//
// No call on it may be under way. What was made with it, as a dk_hotplug, stays valid.
void dk_ctx_free(dk_ctx *ctx);

// A control made of callbacks. All but `settle`, `free` and the guardian's must be there. `*control` is freed with
// dk_control_free(), which calls `free`; if this call fails, `free` is not called.
//
// Pointers: `ops` is a dk_control_ops, whose texts end with a NUL; it is copied. `control` can be written; `error` is NULL or can be written.
dk_status dk_control_new(dk_control **control,
                         const dk_control_ops *ops,
                         void *user,
                         dk_error **error);

// The domains of this host, through its libxl, which is loaded now: `library` is a path, or NULL for that of the Xen
// that runs, 4.16 to 4.21.
//
// The process ignores SIGPIPE from then on, unless it handles it. `*control` is freed with dk_control_free().
//
// Pointers: `library` is NULL or ends with a NUL. `control` can be written; `error` is NULL or can be written.
dk_status dk_control_libxl(dk_control **control,
                           const char *library,
                           dk_error **error);

// The domains of a simulated host (`domkeep simulate serve`), which listens on `socket`. It is connected to when it is used.
// `*control` is freed with dk_control_free().
//
// Pointers: `socket` ends with a NUL. `control` can be written; `error` is NULL or can be written.
dk_status dk_control_simulated(dk_control **control,
                               const char *socket,
                               dk_error **error);

// Frees a control that no call uses any more. NULL is nothing to free.
void dk_control_free(dk_control *control);

// Describes the domain that has this id now. DK_STATUS_NOT_FOUND if none has.
dk_status dk_control_find(const dk_control *control,
                          uint32_t domid,
                          uint32_t timeout_ms,
                          dk_domain *domain,
                          dk_error **error);

// Describes all domains but the control domain, ascending by id: `*count` of them, freed with free(); NULL if there are none.
dk_status dk_control_list(const dk_control *control,
                          uint32_t timeout_ms,
                          dk_domain **domains,
                          size_t *count,
                          dk_error **error);

// Suspends a running domain, writes its memory to `fd` as a libxl stream, and leaves it suspended. With `fd` -1 only suspends it.
// `cancel` may be NULL.
//
// This and the calls below that take a `domain` act on it only if it is the domain with that id *and* uuid. dk_error_details() of
// their failures is a JSON object with "state": what the domain was found to be afterwards, null if that could not be found out.
dk_status dk_control_suspend(const dk_control *control,
                             const dk_domain *domain,
                             int fd,
                             bool live,
                             uint32_t timeout_ms,
                             const dk_cancel *cancel,
                             dk_error **error);

// Lets a suspended domain go on where it was.
dk_status dk_control_resume(const dk_control *control,
                            const dk_domain *domain,
                            uint32_t timeout_ms,
                            dk_error **error);

// Builds a domain from a configuration, as JSON, and the libxl stream that `fd` is read from, and leaves it paused. `cancel` may be
// NULL.
//
// Pointers: `configuration` ends with a NUL. `domain` can be written; `error` is NULL or can be written.
dk_status dk_control_build(const dk_control *control,
                           const char *configuration,
                           int fd,
                           uint32_t timeout_ms,
                           const dk_cancel *cancel,
                           dk_domain *domain,
                           dk_error **error);

// Stops a domain between two instructions. One that is paused already stays so.
dk_status dk_control_pause(const dk_control *control,
                           const dk_domain *domain,
                           uint32_t timeout_ms,
                           dk_error **error);

// Lets a paused domain run. One that runs already goes on.
dk_status dk_control_unpause(const dk_control *control,
                             const dk_domain *domain,
                             uint32_t timeout_ms,
                             dk_error **error);

// Destroys a domain, in whatever state it is.
dk_status dk_control_destroy(const dk_control *control,
                             const dk_domain *domain,
                             uint32_t timeout_ms,
                             dk_error **error);

// Gives a domain another name. DK_STATUS_EXISTS if another has it.
//
// Pointers: `name` ends with a NUL. `domain` is a dk_domain; `error` is NULL or can be written.
dk_status dk_control_rename(const dk_control *control,
                            const dk_domain *domain,
                            const char *name,
                            uint32_t timeout_ms,
                            dk_error **error);

// Attaches a device to a running domain: all its nodes in one Xenstore transaction, the template with it, then the hotplug script.
//
// `class` is one of DK_DEVICE_CLASS_DISK, DK_DEVICE_CLASS_NIC and DK_DEVICE_CLASS_P9. `device` is the device's entry in a
// configuration, as JSON, or what is typed for xl ("format=raw,vdev=xvdb,access=rw,target=/srv/data.img").
//
// It returns when both ends are connected, or when the guest has not answered for as long as it may take: a guest without a driver
// is no error, but is said. `*attached`, which may be left out, becomes a JSON object with "id", "attachment", "replaced_entry" and
// "revision". It is freed with free().
//
// DK_STATUS_REFUSED: dk_error_details() has a JSON array of everything that speaks against it. DK_STATUS_EXISTS: there is such a
// device. DK_STATUS_BUSY: somebody else is plugging it, or held the lock. After these and other errors nothing has changed, but after
// DK_STATUS_FAILED and DK_STATUS_TIMED_OUT: then dk_error_details() has a JSON object whose "left" is null if it was undone, and says
// why not if the device is left half attached, for dk_repair_devices().
//
// Pointers: Texts end with a NUL; `plugging` is NULL or has its size. `attached` and `error` are NULL or can be written.
dk_status dk_attach_device(const dk_ctx *ctx,
                           uint32_t domid,
                           int32_t class_,
                           const char *device,
                           const dk_plugging *plugging,
                           char **attached,
                           dk_error **error);

// Detaches a device from a running domain, in both views. One that only one view has is taken out of that.
//
// `name` is a vdev or its number for a disk, a devid or a MAC address for a nic, a devid or a tag for a share. `*detached`, which
// may be left out, becomes a JSON object with "id", "was_in_xenstore", "was_in_template", "revision", and "script_error" if the
// hotplug script failed: then a loop device or a port of a bridge may be left on the host. It is freed with free().
//
// DK_STATUS_NOT_FOUND: there is no such device. DK_STATUS_TIMED_OUT: the guest has not let it go; it is reported half detached, and
// the call can be made again, or with `force`.
//
// Pointers: As dk_attach_device().
dk_status dk_detach_device(const dk_ctx *ctx,
                           uint32_t domid,
                           int32_t class_,
                           const char *name,
                           const dk_plugging *plugging,
                           char **detached,
                           dk_error **error);

// Finishes, or with `undo` undoes, what is left half attached or half detached of a domain's devices, whoever began it. Safe to
// repeat, and beside a running attach or detach of this library, which is waited for.
//
// `*repaired` becomes a JSON array with an object a device: "id", and either "mended" with what was found, or "error". It is freed
// with free(). The call succeeds also if single devices could not be repaired.
//
// Pointers: `plugging` is NULL or has its size. `repaired` can be written; `error` is NULL or can be written.
dk_status dk_repair_devices(const dk_ctx *ctx,
                            uint32_t domid,
                            bool undo,
                            const dk_plugging *plugging,
                            char **repaired,
                            dk_error **error);

// Takes the lock of a domain's template, which is libxl's own where templates are libxl's, and reads it.
//
// For a toolstack that plugs devices itself: begin, dk_hotplug_add() or dk_hotplug_remove(), commit the own Xenstore transaction,
// dk_hotplug_commit(); or dk_hotplug_abort() if that failed. Nothing slow belongs in between: xl waits for the lock.
//
// `uuid` says which template it is; NULL to find that out from Xenstore or the hypervisor.
//
// `*hotplug` is NULL unless the call succeeds. It must be committed or aborted. The end of the process releases the lock as well,
// and leaves the template as it was.
//
// DK_STATUS_BUSY: somebody held the lock until the deadline. DK_STATUS_NOT_FOUND: there is no such domain, or no template of it.
//
// Pointers: `uuid` is NULL or ends with a NUL. `hotplug` can be written; `error` is NULL or can be written.
dk_status dk_hotplug_begin(const dk_ctx *ctx,
                           uint32_t domid,
                           const char *uuid,
                           dk_hotplug **hotplug,
                           dk_error **error);

// Puts a device into the template, in place of the entry that it may have already.
//
// `class` is one of DK_DEVICE_CLASS_DISK, DK_DEVICE_CLASS_NIC and DK_DEVICE_CLASS_P9. `device` is the device's entry in a
// configuration, as JSON, or what is typed for xl ("format=raw,vdev=xvdb,access=rw,target=/srv/data.img").
//
// `*replaced`, which may be left out, becomes the entry that was there, as JSON, or NULL. It is freed with free().
//
// Pointers: `device` ends with a NUL. `hotplug` is used by no other thread; `replaced` and `error` are NULL or can be written.
dk_status dk_hotplug_add(dk_hotplug *hotplug,
                         int32_t class_,
                         const char *device,
                         char **replaced,
                         dk_error **error);

// Takes a device out of the template. DK_STATUS_NOT_FOUND if it has no such entry.
//
// `name` is a vdev or its number for a disk, and a devid for the others. `*removed`, which may be left out, becomes the entry,
// as JSON. It is freed with free().
//
// Pointers: `name` ends with a NUL. `hotplug` is used by no other thread; `removed` and `error` are NULL or can be written.
dk_status dk_hotplug_remove(dk_hotplug *hotplug,
                            int32_t class_,
                            const char *name,
                            char **removed,
                            dk_error **error);

// The configuration with the changes made so far, which nobody else sees yet. `*configuration` is freed with free().
dk_status dk_hotplug_configuration(const dk_hotplug *hotplug,
                                   char **configuration,
                                   dk_error **error);

// The numbers that the template's devices of a class have, for choosing another: `*count` of them, freed with free(); NULL if
// there are none.
dk_status dk_hotplug_devids(const dk_hotplug *hotplug,
                            int32_t class_,
                            uint32_t **devids,
                            size_t *count,
                            dk_error **error);

// Checks that the changes can be written, so that after this nothing but the store can fail. To be called before the own
// Xenstore transaction is committed.
dk_status dk_hotplug_check(const dk_hotplug *hotplug,
                           dk_error **error);

// Writes the template and releases its lock. Afterwards `hotplug` is no more, however the call ends.
//
// If it fails, the template is the old one or the new one, and complete.
dk_status dk_hotplug_commit(dk_hotplug *hotplug, dk_error **error);

// Releases the lock and leaves the template as it was. Afterwards `hotplug` is no more. NULL is nothing to abort.
void dk_hotplug_abort(dk_hotplug *hotplug);

// Says where disks are that QEMU or tapdisk has moved to other images while their domain runs: in Xenstore, in one transaction, and in
// the template. Without it a domain that is saved and restored by xl opens the images from before, and loses what was written since.
//
// It does not move the disks, and does not look at the images. Views that name them already are left alone, so that a call whose
// process died is completed by the same call.
//
// `*replaced`, which may be left out, becomes a JSON object: "before" and "after", the template's revisions, and "disks", each with
// "vdev" and the images "template", "live" (both from before) and "image". It is freed with free().
//
// DK_STATUS_REFUSED: dk_error_details() has a JSON array of every reason. After other failures it has a JSON object, which says of each
// view, "live" and "template", which images it names: "old", "new", "changed by somebody else" or "not known". docs/replace-image.md
// has all cases.
//
// Pointers: `images` has `count` entries, whose texts end with a NUL. `replaced` and `error` are NULL or can be written.
dk_status dk_replace_images(const dk_ctx *ctx,
                            uint32_t domid,
                            const dk_image *images,
                            size_t count,
                            char **replaced,
                            dk_error **error);

// Has `log` called with each line that the library logs, of this level (a dk_log_level) and above. The line is valid during the
// callback, which may come from any thread, also at the same time, and must not call this library.
//
// Once for a process: the level stays, and a later call only changes callback and `user`. NULL for `log` ends it; a callback that
// is under way in another thread may still be running then. DK_STATUS_EXISTS: this process has a logger for `tracing` already.
//
// Pointers: `log` and `user` can be used until they are replaced. `error` is NULL or can be written.
dk_status dk_set_logger(int level,
                        void (*log)(void *user, const char *line),
                        void *user,
                        dk_error **error);

// Makes a cancel. It is freed with dk_cancel_free().
dk_status dk_cancel_new(dk_cancel **cancel, dk_error **error);

// Cancels, now and for good. May be called by any thread, and in a signal's handler.
void dk_cancel_now(const dk_cancel *cancel);

// Frees a cancel that no call uses any more. NULL is nothing to free.
void dk_cancel_free(dk_cancel *cancel);

// The way in which the call failed, which is also what the call returned. DK_STATUS_OK if the error is NULL.
dk_status dk_error_status(const dk_error *error);

// The function that failed, such as "dk_retrieve_domain_configuration". Valid as long as the error; NULL if that is NULL.
const char *dk_error_operation(const dk_error *error);

// What failed, in words, without the cause. Valid as long as the error; NULL if that is NULL.
const char *dk_error_message(const dk_error *error);

// Why it failed: all causes on one line, the last one last. Valid as long as the error; NULL if the message says all.
const char *dk_error_cause(const dk_error *error);

// The Xenstore path, file or JSON path that it was about. Valid as long as the error; NULL if it was about none.
const char *dk_error_path(const dk_error *error);

// The domain that it was about; -1 if it was about none.
int32_t dk_error_domid(const dk_error *error);

// What there is to know besides, as JSON: the reasons of a refusal, the differences that were found, what a failed save or
// restore has left. Valid as long as the error; NULL if there is no more.
const char *dk_error_details(const dk_error *error);

// Frees an error. NULL is nothing to free.
void dk_error_free(dk_error *error);

// What the configuration of a domain is now: its template, with the live Xenstore laid over it.
//
// `policy` is one of DK_POLICY_LIVE, DK_POLICY_UNION and DK_POLICY_TEMPLATE.
//
// `*configuration` becomes the configuration, as libxl with yajl prints it. `*report` becomes a JSON object: "domid", "revision",
// which changes when template or view change, and where every value came from, what the views say differently, what is half
// attached, and what could not be seen; `report` may be NULL. Both are freed with free(), and are NULL unless the call succeeds.
//
// What is wrong with single values, devices or the template's text is in the report, and no error. A caller that must not act
// on part of the truth looks at "template" and "unseen" there.
//
// DK_STATUS_NOT_FOUND: there is no such domain. DK_STATUS_BUSY: somebody held its template until the deadline.
// DK_STATUS_UNREACHABLE: Xenstore or the template store cannot be read.
dk_status dk_retrieve_domain_configuration(const dk_ctx *ctx,
                                           uint32_t domid,
                                           int32_t policy,
                                           char **configuration,
                                           char **report,
                                           dk_error **error);

// The ids of all domains that Xenstore has, domain 0 among them, ascending.
//
// `*domids` becomes an array of `*count` ids, or NULL if there are none. It is freed with free().
dk_status dk_list_domains(const dk_ctx *ctx, uint32_t **domids, size_t *count, dk_error **error);

// The configurations of all domains, as `xl list -l` prints them: a JSON array of objects with "domid" and either "config" or
// "error", in words. A domain whose template cannot be used has an error: what is left would be taken for its configuration.
//
// `*list` is freed with free(). Domains that come or go meanwhile may be in it or not.
dk_status dk_list_domain_configurations(const dk_ctx *ctx,
                                        int32_t policy,
                                        char **list,
                                        dk_error **error);

// The id of the domain with this name. DK_STATUS_NOT_FOUND if there is none, DK_STATUS_REFUSED if there are several, whose ids
// dk_error_details() has as a JSON array.
//
// Pointers: `name` ends with a NUL. `domid` can be written; `error` is NULL or can be written.
dk_status dk_find_domain(const dk_ctx *ctx,
                         const char *name,
                         uint32_t *domid,
                         dk_error **error);

// Looks whether a domain can be saved, and what that would do. Nothing is changed.
//
// `request` is the JSON of docs/snapshot-schema.md. Descriptors that it names by their index are in `fds`, `fd_count` of them; they
// stay the caller's. `*plan` becomes a JSON object: files that would be created, space, warnings, the consistency to be had. It
// is freed with free().
//
// DK_STATUS_REFUSED: dk_error_details() has a JSON array of every reason against.
//
// Pointers: `request` ends with a NUL; `fds` has `fd_count` descriptors. `plan` can be written; `error` is NULL or can be written.
dk_status dk_snapshot_plan_save(const dk_ctx *ctx,
                                const dk_control *control,
                                const char *request,
                                const int *fds,
                                size_t fd_count,
                                char **plan,
                                dk_error **error);

// Saves a domain as a whole: memory, disks, configuration and Xenstore state of one moment.
//
// `request`, `fds` and `fd_count` are as for dk_snapshot_plan_save(), which this begins with. `observer` may be NULL.
//
// `*manifest` becomes what was saved, as JSON, to be kept octet for octet: dk_snapshot_verify() and dk_snapshot_restore() take it. It
// is freed with free(). **It may be there although the call fails**, when what failed came after the disks were moved: then the
// snapshot is whole, and nothing else tells where the domain's disks are now. Otherwise everything was undone.
//
// dk_error_details() of a failed save is a JSON object: "phase", "domain" (its state), "disks" (in which image each is), "removed",
// "left", "still_frozen" (why the guest's file systems may be), "journal" (if there is something for dk_snapshot_recover() to do),
// "reasons" (every one, if it was refused).
//
// Pointers: As dk_snapshot_plan_save(); `observer` is NULL or a dk_observer.
dk_status dk_snapshot_save(const dk_ctx *ctx,
                           const dk_control *control,
                           const char *request,
                           const int *fds,
                           size_t fd_count,
                           const dk_observer *observer,
                           char **manifest,
                           dk_error **error);

// Compares a snapshot with what is there. Nothing is created, and nothing is opened for writing.
//
// `depth` is one of DK_DEPTH_HEADER, DK_DEPTH_CHAIN and DK_DEPTH_FULL. `memory_fd` and `xenstore_fd` are where the memory image and the
// Xenstore state are, or -1 for where the manifest says. `observer` may be NULL. `*report`, which may be left out, becomes a JSON
// object: "checked", "uncovered", "notes" and "octets". It is freed with free().
//
// DK_STATUS_DIFFERENT: dk_error_details() has a JSON array of everything that is wrong.
//
// Pointers: `manifest` ends with a NUL; `observer` is NULL or a dk_observer. `report` and `error` are NULL or can be written.
dk_status dk_snapshot_verify(const char *manifest,
                             int depth,
                             int memory_fd,
                             int xenstore_fd,
                             const dk_observer *observer,
                             char **report,
                             dk_error **error);

// Looks whether a snapshot can be restored, and what that would do. Nothing is changed.
//
// `manifest` is what dk_snapshot_save() gave, octet for octet. `request` is the JSON of docs/snapshot-schema.md but for its member
// "snapshot", which is the manifest; `fds` and `fd_count` are as for dk_snapshot_plan_save(). `*plan` becomes a JSON object. It is freed
// with free().
//
// Pointers: As dk_snapshot_plan_save().
dk_status dk_snapshot_plan_restore(const dk_ctx *ctx,
                                   const dk_control *control,
                                   const char *manifest,
                                   const char *request,
                                   const int *fds,
                                   size_t fd_count,
                                   char **plan,
                                   dk_error **error);

// Brings a saved domain back: beside others, or in the place of one.
//
// What is asked is as for dk_snapshot_plan_restore(), which this begins with. `observer` may be NULL. `*restored` becomes a JSON object:
// "domain", "state", "name", "configuration", "disks", "xenstore" and "warnings". It is freed with free(). **It may be there although the
// call fails**, when the domain is built and only its name or its start is missing. Otherwise everything was undone.
//
// dk_error_details() of a failed restore is a JSON object: "phase", "domain", "state", "replaced" (the state of the domain that was to
// be replaced), "removed", "left", "journal", "reasons" (every one, if it was refused, and every difference from what was saved).
//
// Pointers: As dk_snapshot_save().
dk_status dk_snapshot_restore(const dk_ctx *ctx,
                              const dk_control *control,
                              const char *manifest,
                              const char *request,
                              const int *fds,
                              size_t fd_count,
                              const dk_observer *observer,
                              char **restored,
                              dk_error **error);

// Finds out from its journal what became of a save or restore whose process died, and undoes or completes it. It may be repeated.
// The journal is the caller's to remove afterwards.
//
// `*recovered` becomes a JSON object: "recovered" is "nothing-done", "rolled-back", "saved" or "restored", and "rolled_back", "snapshot"
// or "restored" tell the rest. `*manifest`, which may be left out, becomes what dk_snapshot_save() would have given if the save is
// complete now, else NULL. Both are freed with free(). `observer` may be NULL.
//
// DK_STATUS_BUSY: what the journal is of is still going on, or its guardian is at work. DK_STATUS_INVALID_DATA: the journal is none,
// or is broken. After any failure the call can be made again.
//
// Pointers: `journal` ends with a NUL; `observer` is NULL or a dk_observer. `recovered` can be written; `manifest` and `error` are NULL or can
// be written.
dk_status dk_snapshot_recover(const dk_ctx *ctx,
                              const dk_control *control,
                              const char *journal,
                              const dk_observer *observer,
                              char **recovered,
                              char **manifest,
                              dk_error **error);

// An xenstore-migration stream, of either version and byte order, as JSON: "version", "byte_order", "records", each with its "type"
// and fields, "peer" and "deviations". docs/xenstore-migration.md has the fields.
//
// `*json` is freed with free(). DK_STATUS_INVALID_DATA: it is no such stream, or does not end; the message says at which record and
// octet.
//
// Pointers: `stream` has `length` octets. `json` can be written; `error` is NULL or can be written.
dk_status dk_stream_decode(const uint8_t *stream,
                           size_t length,
                           char **json,
                           dk_error **error);

// The stream that a JSON document describes: octet for octet that of which dk_stream_decode() made it.
//
// `*stream` becomes `*length` octets, freed with free(). DK_STATUS_INVALID_DATA: it describes none; the message says where in the
// document and why.
//
// Pointers: `json` ends with a NUL. `stream` and `length` can be written; `error` is NULL or can be written.
dk_status dk_stream_encode(const char *json,
                           uint8_t **stream,
                           size_t *length,
                           dk_error **error);

// Stores the template of a new domain. When the call has succeeded, it is durable.
//
// `json` is what libxl_domain_config_to_json() gives, or dk_config_print(). DK_STATUS_EXISTS if the domain has a template:
// creating never replaces. DK_STATUS_INVALID_DATA if it is no configuration.
//
// Pointers: Texts end with a NUL. `error` is NULL or can be written.
dk_status dk_template_create(const dk_ctx *ctx,
                             uint32_t domid,
                             const char *uuid,
                             const char *json,
                             dk_error **error);

// Removes the template of a domain that is gone. DK_STATUS_NOT_FOUND if there was none.
//
// Pointers: `uuid` ends with a NUL. `error` is NULL or can be written.
dk_status dk_template_forget(const dk_ctx *ctx, uint32_t domid, const char *uuid, dk_error **error);

// The version of the library, such as "0.1.0". It is valid for ever and must not be freed.
const char *dk_version(void);

// Reads a node.
//
// `*value` becomes `*length` octets, or NULL if it is empty. It is freed with free(). DK_STATUS_NOT_FOUND: there is no such node.
//
// Pointers: `path` ends with a NUL. `value` and `length` can be written; `error` is NULL or can be written.
dk_status dk_xenstore_read(const dk_ctx *ctx,
                           const char *path,
                           uint8_t **value,
                           size_t *length,
                           dk_error **error);

// Changes several nodes in one transaction: others see all of it or nothing, and watches fire afterwards.
//
// The changes are made in their order. A node to be removed that is not there is no error. A conflict with somebody else's change
// is tried again until the context's time is over: DK_STATUS_BUSY.
//
// Pointers: `nodes` has `count` entries, whose paths end with a NUL and whose values have their lengths. `error` is NULL or can be written.
dk_status dk_xenstore_change(const dk_ctx *ctx,
                             const dk_node *nodes,
                             size_t count,
                             dk_error **error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* DOMKEEP_H */
