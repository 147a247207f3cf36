// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * The page that a guest shares with Xenstore, as the file /dev/lab-ring: reads and writes at an offset. A write at the
 * page's end notifies Xenstore. Whoever opens it may spoil the page under the kernel's own use: that is its job.
 */
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>
#include <xen/events.h>
#include <xen/interface/io/xs_wire.h>
#include <xen/page.h>
#include <xen/xenbus.h>

static ssize_t lab_ring_read(struct file *file, char __user *to, size_t count, loff_t *at)
{
	return simple_read_from_buffer(to, count, at, xen_store_interface, XEN_PAGE_SIZE);
}

static ssize_t lab_ring_write(struct file *file, const char __user *from, size_t count, loff_t *at)
{
	if (*at == XEN_PAGE_SIZE) {
		notify_remote_via_evtchn(xen_store_evtchn);
		return count;
	}
	return simple_write_to_buffer(xen_store_interface, XEN_PAGE_SIZE, at, from, count);
}

static const struct file_operations lab_ring_operations = {
	.owner = THIS_MODULE,
	.read = lab_ring_read,
	.write = lab_ring_write,
	.llseek = default_llseek,
};

static struct miscdevice lab_ring = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "lab-ring",
	.fops = &lab_ring_operations,
};

module_misc_device(lab_ring);
MODULE_DESCRIPTION("The page that a guest shares with Xenstore, for the lab's hostile guest");
MODULE_LICENSE("Dual MIT/GPL");
